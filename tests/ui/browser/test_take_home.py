"""Taking a candidate home in a browser: what is shown beforehand, a zip, a refusal."""

import zipfile

from tests.ui.browser.driving import tab, toast


def test_a_zip_is_downloaded(visit, workspace):
    page = visit()
    tab(page, "Take home")
    page.locator(".es-licence[data-kind=free]", has_text="apache-2.0").wait_for()
    page.locator("#mergekit-card > button").click()
    page.locator("#mergekit", has_text="dare_ties").wait_for()
    page.get_by_role("radio", name="a zip file").check()
    page.locator("#folder :is(input, textarea)").fill("mine")
    page.locator("#export").click()
    page.locator("#export-files .es-files", has_text="model.safetensors").wait_for()
    with page.expect_download() as waited:
        page.locator("#export-zip").click()
    with zipfile.ZipFile(waited.value.path()) as archive:
        assert "mine/model.safetensors" in archive.namelist() and archive.testzip() is None
    assert not list((workspace / "exports" / "local").iterdir())


def test_a_push_says_what_it_lacks(visit):
    page = visit()
    tab(page, "Take home")
    page.get_by_role("radio", name="on the Hugging Face hub").check()
    page.locator("#repository :is(input, textarea)").fill("nobody")
    page.locator("#export").click()
    toast(page, "owner/name")
    page.locator("#export:not([disabled])").wait_for()
