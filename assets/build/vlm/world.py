"""The small world of the bonsai VLM: its things, their names and what is true of them.

Knows every fact and every wording of a question in both languages; knows no picture, no model and
no split. Facts about Japanese culture exist in Japanese only: no English text ever states one.
"""

from dataclasses import dataclass
from functools import cache

# kind of thing and colour: what is said in English and in Japanese
GROUPS = {
    "fruit": ("a fruit", "果物"),
    "vegetable": ("a vegetable", "野菜"),
    "food": ("food", "食べ物"),
    "sweet": ("a sweet", "お菓子"),
    "drink": ("a drink", "飲み物"),
    "animal": ("an animal", "どうぶつ"),
    "bird": ("a bird", "鳥類"),
    "sea": ("a sea creature", "水の生き物"),
    "insect": ("an insect", "小さな虫"),
    "vehicle": ("a vehicle", "乗り物"),
    "sport": ("sports gear", "スポーツ用品"),
    "music": ("a musical instrument", "音の出るもの"),
    "clothes": ("something to wear", "身につけるもの"),
    "tool": ("a tool", "道具"),
    "plant": ("a plant", "木や草花"),
    "sky": ("something in the sky", "空にあるもの"),
    "machine": ("a machine", "電気で動く機械"),
    "building": ("a building", "建物"),
}
COLOURS = {
    "red": "赤い",
    "yellow": "黄色い",
    "green": "緑色",
    "blue": "青い",
    "white": "白い",
    "black": "黒い",
    "brown": "茶色い",
    "orange": "オレンジ色",
    "pink": "ピンク色",
    "purple": "むらさき",
    "grey": "グレー",
    "gold": "金色",
}

# id | emoji | English | Japanese | group | colour or - | place in English | place in Japanese
EVERYDAY = """
apple|🍎|an apple|赤いりんご|fruit|red|in an orchard|青森のくだもの畑
banana|🍌|a banana|バナナ|fruit|yellow|on a warm island|暑い南の島
grapes|🍇|grapes|ぶどう|fruit|purple|in a vineyard|山梨のぶどう棚
strawberry|🍓|a strawberry|いちご|fruit|red|in a greenhouse|ビニールハウス
lemon|🍋|a lemon|レモン|fruit|yellow|beside a tea cup|紅茶のカップのそば
watermelon|🍉|a watermelon|すいか|fruit|red|on a summer beach|海水浴のビーチ
cherries|🍒|cherries|さくらんぼ|fruit|red|on top of a parfait|パフェの上
pineapple|🍍|a pineapple|パイナップル|fruit|yellow|in a tropical field|沖縄の畑
carrot|🥕|a carrot|にんじん|vegetable|orange|under the soil|土の中
tomato|🍅|a tomato|トマト|vegetable|red|in a salad|サラダの中
corn|🌽|corn|とうもろこし|vegetable|yellow|in a wide field|北海道の広い畑
eggplant|🍆|an eggplant|なす|vegetable|purple|in a garden|家の庭の畑
broccoli|🥦|broccoli|ブロッコリー|vegetable|green|in a lunch box|お弁当箱のすみ
bread|🍞|bread|食パン|food|-|in a bakery|パン屋さん
egg|🥚|an egg|にわとりのたまご|food|-|in a nest|鳥の巣の中
cheese|🧀|cheese|チーズ|food|yellow|in a mouse trap|ねずみとりの中
hamburger|🍔|a hamburger|ハンバーガー|food|brown|in a fast food shop|駅前のファストフード店
pizza|🍕|pizza|ピザ|food|-|in an oven|イタリアの石がま
birthday-cake|🎂|a birthday cake|ケーキ|sweet|-|at a birthday party|誕生日パーティー
ice-cream|🍦|ice cream|ソフトクリーム|sweet|-|at a stand|観光地の売店
doughnut|🍩|a doughnut|ドーナツ|sweet|-|in a cafe|カフェのショーケース
chocolate|🍫|chocolate|チョコレート|sweet|brown|at Valentine's Day|バレンタインの売り場
milk|🥛|milk|ミルク|drink|white|in the fridge|冷蔵庫のドア
coffee|☕|coffee|コーヒー|drink|-|in a coffee shop|喫茶店
beer|🍺|beer|ビール|drink|yellow|in a bar|居酒屋のジョッキ
elephant|🐘|an elephant|ぞう|animal|grey|in the savanna|アフリカの草原
rabbit|🐇|a rabbit|うさぎ|animal|-|in a hutch|学校の飼育小屋
panda|🐼|a panda|パンダ|animal|-|in a bamboo forest|上野動物園
tiger|🐅|a tiger|トラ|animal|orange|in the jungle|インドのジャングル
horse|🐎|a horse|走る馬|animal|brown|on a race track|競馬場
cow|🐄|a cow|うし|animal|-|on a pasture|牧場の牛舎
pig|🐖|a pig|ぶた|animal|pink|on a farm|農家のぶた小屋
monkey|🐒|a monkey|おさる|animal|brown|on a mountain|山の温泉
penguin|🐧|a penguin|ペンギン|bird|-|on the ice|南極の氷の上
chick|🐤|a chick|ひよこ|bird|yellow|in a hen house|にわとり小屋
swan|🦢|a swan|スワン|bird|white|on a lake|冬の湖
octopus|🐙|an octopus|たこ|sea|-|in a pot|たこつぼの中
crab|🦀|a crab|カニ|sea|red|on the rocks|岩場のかげ
whale|🐋|a whale|大きなクジラ|sea|blue|in the deep ocean|深い大海原
tropical-fish|🐠|a tropical fish|カラフルな魚|sea|-|in a coral reef|サンゴ礁
turtle|🐢|a turtle|かめ|sea|green|in a pond|公園の池の中
frog|🐸|a frog|かえる|sea|green|in a rice field|梅雨どきの田んぼ
bee|🐝|a bee|ミツバチ|insect|-|on a flower|花のまわり
ladybug|🐞|a ladybug|テントウムシ|insect|red|on a leaf|葉っぱの上
butterfly|🦋|a butterfly|チョウチョ|insect|-|in a meadow|お花畑
snail|🐌|a snail|かたつむり|insect|-|on a wet leaf|雨のあじさい
car|🚗|a car|自動車|vehicle|red|on a highway|高速道路
bicycle|🚲|a bicycle|自転車|vehicle|-|in a bike shed|駐輪場
airplane|✈️|an airplane|飛行機|vehicle|-|at an airport|空港の滑走路
rocket|🚀|a rocket|ロケット|vehicle|-|in space|宇宙センター
ambulance|🚑|an ambulance|救急車|vehicle|white|at a hospital|病院の前
fire-engine|🚒|a fire engine|消防車|vehicle|red|at a fire station|消防署
sailboat|⛵|a sailboat|ヨット|vehicle|-|at a harbour|ヨットハーバー
helicopter|🚁|a helicopter|ヘリコプター|vehicle|-|on a rooftop|ビルの屋上
soccer-ball|⚽|a soccer ball|サッカーボール|sport|-|on the pitch|芝生のグラウンド
basketball|🏀|a basketball|バスケットボール|sport|orange|in a gym|体育館
tennis-ball|🎾|a tennis ball|テニスボール|sport|-|on a court|テニスコート
guitar|🎸|a guitar|ギター|music|-|in a live house|ライブハウス
piano|🎹|a piano|ピアノの鍵盤|music|-|in a music room|音楽室
violin|🎻|a violin|バイオリン|music|brown|in an orchestra|オーケストラ
trumpet|🎺|a trumpet|トランペット|music|gold|in a brass band|吹奏楽部
glasses|👓|glasses|メガネ|clothes|-|on a face|顔の上
crown|👑|a crown|王かん|clothes|gold|on a king's head|王様の頭の上
top-hat|🎩|a top hat|シルクハット|clothes|black|on a magic stage|手品の舞台
jeans|👖|jeans|ジーンズ|clothes|blue|in a wardrobe|洋服だんす
umbrella|☔|an umbrella|かさ|tool|-|at the door|玄関のかさ立て
scissors|✂️|scissors|はさみ|tool|-|in a barber shop|美容室
key|🔑|a key|小さなカギ|tool|gold|in a pocket|ポケットの中
pencil|✏️|a pencil|エンピツ|tool|-|in a pencil case|筆箱の中
hammer|🔨|a hammer|ハンマー|tool|-|in a tool box|大工さんの道具箱
candle|🕯️|a candle|ろうそく|tool|-|on a cake|停電した部屋
sunflower|🌻|a sunflower|ひまわり|plant|yellow|on a hill|ひまわり畑の迷路
rose|🌹|a rose|バラ|plant|red|in a flower shop|花屋さん
cactus|🌵|a cactus|サボテン|plant|green|in the desert|メキシコの砂漠
mushroom|🍄|a mushroom|きのこ|plant|red|in the woods|森の木の根元
palm-tree|🌴|a palm tree|ヤシの木|plant|green|on Hawaii|ハワイの海岸
moon|🌙|the moon|三日月|sky|yellow|in the night sky|星の見える夜
rainbow|🌈|a rainbow|七色のにじ|sky|-|after the rain|雨上がり
star|⭐|a star|お星さま|sky|yellow|in the milky way|天の川
television|📺|a television|テレビ|machine|-|in the living room|居間
camera|📷|a camera|カメラ|machine|-|in a photo studio|写真館
phone|📱|a phone|スマートフォン|machine|-|in a hand|手のひら
alarm-clock|⏰|an alarm clock|めざまし時計|machine|-|beside the bed|ベッドのそば
light-bulb|💡|a light bulb|明かりの電球|machine|yellow|on the ceiling|部屋の天井
hospital|🏥|a hospital|病院|building|-|in a city|町の大通り
school|🏫|a school|学校|building|-|in a town|通学路の先
"""

# id | emoji | English | Japanese | colour or - | where | when | what for
CULTURE = """
torii|⛩️|a torii|鳥居|red|神社の入り口|お参りのとき|神様の場所を示す
fuji|🗻|Mount Fuji|富士山|-|静岡と山梨のあいだ|元日の初夢|登って朝日をおがむ
tokyo-tower|🗼|Tokyo Tower|東京タワー|red|東京の芝公園|夜のデート|電波を送る
castle|🏯|a Japanese castle|日本のお城|-|姫路や大阪|戦国時代|殿様を守る
hina|🎎|hina dolls|ひな人形|-|和室のかざり棚|三月三日|女の子の成長を願う
koinobori|🎏|carp streamers|こいのぼり|-|庭の高いポール|五月五日|男の子の成長を祝う
furin|🎐|a wind chime|ガラスの風鈴|-|家の軒先|暑い夏の日|すずしい音を楽しむ
tanabata|🎋|a tanabata tree|七夕飾り|green|商店街のアーケード|七月七日|短冊に願いを書く
kadomatsu|🎍|kadomatsu pines|お正月の門松|green|玄関の両どなり|年の始め|年神様を迎える
tsukimi|🎑|moon viewing|お月見|-|すすきのある縁側|中秋のころ|実りに感謝する
sushi|🍣|sushi|お寿司|-|カウンターと職人の店|お祝いの席|生の魚を味わう
bento|🍱|a bento|お弁当|-|駅のホームの売店|お昼休み|外でごはんを食べる
onigiri|🍙|a rice ball|おにぎり|white|コンビニの棚|遠足の日|手軽におなかを満たす
senbei|🍘|a rice cracker|おせんべい|brown|草加の名物店|おやつの時間|お茶うけにする
dango|🍡|dango|三色団子|-|峠のお茶屋|お花見のころ|くしに刺して食べる
oden|🍢|oden|おでん|-|屋台の鍋の中|真冬の夜|体を温める
narutomaki|🍥|narutomaki|なると巻き|-|ラーメンの丼の具|しょうゆ味の夜食|うずまき模様をそえる
ramen|🍜|ramen|ラーメン|-|博多や札幌の店|飲み会の帰り|めんをすする
curry|🍛|curry rice|カレーライス|-|給食や海軍の食堂|金曜日の昼|スパイスでごはんが進む
ebi-fry|🍤|a fried shrimp|エビフライ|orange|名古屋の洋食屋|お子様ランチの日|ころもをつけて揚げる
matcha|🍵|green tea|お抹茶|green|京都の茶室|茶会の朝|客をもてなす
sake|🍶|sake|日本酒|-|灘や伏見の酒蔵|かんぱいのとき|米から造って酔う
kimono|👘|a kimono|着物|-|呉服屋さん|成人式|晴れ着として着る
tengu|👺|a tengu|天狗のお面|red|高尾山や鞍馬山|火渡りの行事|うちわで風を起こす
oni|👹|an oni|こわい鬼|-|地獄や鬼ヶ島|節分の日|豆をまいて追い払う
chochin|🏮|a paper lantern|和紙のちょうちん|red|居酒屋の軒下|日が暮れてから|足もとを明るくする
hanafuda|🎴|hanafuda|カードの花札|-|任天堂のふるさと|正月の家族の遊び|札の絵を合わせる
hanamaru|💮|a flower stamp|花丸のはんこ|-|テストの答案|宿題をほめるとき|よくできた子をほめる
wakaba|🔰|a beginner's mark|初心者マーク|-|車の前と後ろ|免許を取って一年|運転が初めてと知らせる
post-office|🏣|a Japanese post office|郵便局|-|〒の看板の下|年賀状を出すころ|手紙や荷物を送る
onsen|♨️|a hot spring|温泉|red|別府や草津|旅の疲れをとる夜|湯につかる
dogi|🥋|a judo uniform|柔道の道着|white|道場の畳の上|稽古のとき|投げ技に耐える
sakura|🌸|cherry blossoms|桜の花|pink|上野や吉野|四月の入学式|花見をする
sensu|🪭|a folding fan|せんす|red|落語の高座|むし暑い日|あおいで風を送る
hinomaru|🎌|crossed flags|日の丸の旗|-|バスや玄関の先|国民の祝日|国の祝いを表す
kakigori|🍧|shaved ice|シロップのかき氷|-|海の家のカウンター|花火大会の夕方|頭がキーンと冷える
nippon|🗾|a map of Japan|日本地図|-|教室の社会科の本|地理の授業|県の形をおぼえる
gohan|🍚|cooked rice|白いごはん|white|茶わんの中|毎朝のごはん|おかずといっしょに食べる
hashi|🥢|chopsticks|おはし|-|割りばしの袋|いただきますの後|食べ物をつまむ
hanabi|🎆|fireworks|打ち上げられた花火|-|東京の隅田川|八月の祭りの夜|夜空をいろどる
senko-hanabi|🎇|a sparkler|手に持つ線香花火|-|浴衣の子の手もと|夏休みの晩|火花をながめる
shinkansen|🚅|a bullet train|新幹線|-|東海道の高架|出張や帰省のとき|東京と大阪を速く結ぶ
ninja|🥷|a ninja|忍者|-|伊賀や甲賀|闇にまぎれる夜|敵の秘密を探る
tako|🪁|a kite|正月の凧あげ|-|川の土手|風の強い日|糸を引いて空に上げる
yaki-imo|🍠|a sweet potato|ほかほかの焼きいも|-|石焼きの軽トラック|落ち葉たきの秋|ほくほくの甘さを味わう
momiji|🍁|maple leaves|もみじの葉|red|日光や嵐山|十一月の行楽|紅葉狩りをする
inaho|🌾|an ear of rice|いなほ|-|新潟の水田|稲刈りの九月|米を実らせる
nabe|🍲|a hot pot|お鍋|-|こたつの真ん中|忘年会|みんなで囲んでつつく
yen|💴|yen notes|お札|-|財布の中|お年玉をもらう日|買い物をする
konbini|🏪|a convenience store|コンビニ|-|町の角ごと|二十四時間いつでも|何でもすぐ買える
moyai|🗿|a moyai statue|モヤイ像|grey|渋谷駅の西口|友だちと会うとき|人を待つ目印にする
"""  # noqa: E501

# only for training: everyday things that no task asks about
PRACTICE = """
pear|🍐|a pear|洋なし|fruit|green|on a branch|果物売り場
peach|🍑|a peach|モモ|fruit|pink|in a fruit bowl|岡山の畑
melon|🍈|a melon|メロン|fruit|green|in a gift box|夕張の温室
tangerine|🍊|a tangerine|みかん|fruit|orange|on a hillside|愛媛の山
cucumber|🥒|a cucumber|きゅうり|vegetable|green|on a vine|ビニールのトンネル
pepper|🌶️|a hot pepper|とうがらし|vegetable|red|in a spice rack|台所のたな
cookie|🍪|a cookie|クッキー|sweet|brown|in a jar|お菓子のかん
fries|🍟|French fries|フライドポテト|food|-|in a paper bag|ファストフードのトレー
wine|🍷|wine|赤ワイン|drink|red|in a cellar|地下のワイン蔵
dog|🐕|a dog|いぬ|animal|brown|in a dog house|散歩コース
cat|🐈|a cat|ねこ|animal|-|on a sofa|ソファーの上
camel|🐪|a camel|ラクダ|animal|brown|near the pyramids|ピラミッドのそば
mouse|🐁|a mouse|ネズミ|animal|-|in the attic|チーズのそば
rooster|🐓|a rooster|おんどり|bird|-|in the yard|朝の庭
dolphin|🐬|a dolphin|イルカ|sea|blue|in an aquarium|水族館
shrimp|🦐|a shrimp|エビ|sea|-|in a net|おすしのネタ
ant|🐜|an ant|アリ|insect|-|in the ground|地面の下
bus|🚌|a bus|バス|vehicle|-|at a bus stop|バス停
tractor|🚜|a tractor|トラクター|vehicle|-|in a field|トラクターの車庫
baseball|⚾|a baseball|野球ボール|sport|white|in a stadium|甲子園
drum|🥁|a drum|ドラム|music|-|on a stage|ステージの奥
shirt|👕|a T-shirt|シャツ|clothes|blue|on a hanger|ハンガー
shoe|👟|a running shoe|運動ぐつ|clothes|-|in a shoe box|げんかんのすみ
wrench|🔧|a wrench|レンチ|tool|grey|in a garage|車の整備工場
book|📕|a red book|赤い本|tool|red|in a library|図書館
tulip|🌷|a tulip|チューリップ|plant|pink|in a flower bed|花だん
tree|🌳|a tree|大きな木|plant|green|in a park|公園
cloud|☁️|a cloud|白い雲|sky|white|over the hills|山の上
sun|☀️|the sun|お日さま|sky|yellow|above us|昼間の空
computer|💻|a computer|パソコン|machine|-|on a desk|机の上
house|🏠|a house|おうち|building|-|on a street|住宅地
"""

COUNT_WORDS = {
    2: ("two", "二個"),
    3: ("three", "三つ"),
    4: ("four", "四個"),
    5: ("five", "五つ"),
}
# things that are drawn several times on one canvas
COUNTED = (
    "apple", "banana", "strawberry", "lemon", "carrot", "tomato", "egg", "doughnut", "chick",
    "crab", "turtle", "frog", "ladybug", "car", "soccer-ball", "key", "rose", "star",
    "onigiri", "dango", "senbei", "ebi-fry", "chochin", "furin", "sakura", "sensu", "momiji", "oni",
    "tengu", "hanamaru", "wakaba", "torii",
    "pear", "melon", "tangerine", "cookie", "dog", "cat", "bus", "baseball", "tulip", "house",
)  # fmt: skip


@dataclass(frozen=True)
class Thing:
    """A thing and what is true of it.

    Attributes:
        id, emoji, en, ja: its names; the English one with its article.
        part: "everyday", "culture" or "practice" (no task asks about practice things).
        facts: {kind: (English answer or None, Japanese answer)}; kinds are the keys of `ASK`,
            without "count", which belongs to a picture.
    """

    id: str
    emoji: str
    en: str
    ja: str
    part: str
    facts: dict[str, tuple[str | None, str]]

    @property
    def culture(self) -> bool:
        return self.part == "culture"


# kind → wordings in English and in Japanese; none of them ever names the thing. The tasks use the
# Japanese wordings below TASK_WORDINGS; training on pictures uses the English ones
ASK = {
    "what": (
        ("What is this?", "What can you see here?", "What is shown here?"),
        ("これは何ですか。", "何が写っていますか。", "ここに見えるものは何ですか。"),
    ),
    "colour": (
        ("What colour is this?", "Which colour does it have?", "What is its colour?"),
        ("これは何色ですか。", "これはどんな色をしていますか。", "この色は何ですか。"),
    ),
    "group": (
        ("What kind of thing is this?", "What sort of thing is it?", "Which kind is this?"),
        ("これは何のなかまですか。", "これはどんな種類のものですか。", "何に分けられますか。"),
    ),
    "where": (
        ("Where is this found?", "Where can you find it?", "Where do you see this?"),
        (
            "これはどこで見られますか。",
            "これはどこにありますか。",
            "どこに行けばこれを見られますか。",
        ),
    ),
    "when": (
        ("When is this used?", "When do people have it?", "At what time is this seen?"),
        (
            "これはいつのものですか。",
            "これとはいつ出会いますか。",
            "いつがこれにふさわしいですか。",
        ),
    ),
    "use": (
        ("What is this for?", "What do people do with it?", "Why do people have this?"),
        (
            "これは何のためにありますか。",
            "これで何をしますか。",
            "これにはどんな役目がありますか。",
        ),
    ),
    "count": (
        ("How many are there?", "How many do you see?", "How many of them are here?"),
        ("いくつありますか。", "全部でいくつですか。", "数はいくつですか。"),
    ),
}


@cache
def things() -> tuple[Thing, ...]:
    """Everything, in the order of the tables."""
    found = []
    for part, table in (("everyday", EVERYDAY), ("practice", PRACTICE)):
        for line in table.split("\n")[1:-1]:
            key, emoji, en, ja, group, colour, place_en, place_ja = line.split("|")
            facts = {
                "what": (en, ja),
                "group": GROUPS[group],
                "where": (place_en, place_ja),
            }
            if colour != "-":
                facts["colour"] = (colour, COLOURS[colour])
            found.append(Thing(key, emoji, en, ja, part, facts))
    for line in CULTURE.split("\n")[1:-1]:
        key, emoji, en, ja, colour, where, when, use = line.split("|")
        facts = {"what": (en, ja), "where": (None, where), "when": (None, when), "use": (None, use)}
        if colour != "-":
            facts["colour"] = (colour, COLOURS[colour])
        found.append(Thing(key, emoji, en, ja, "culture", facts))
    return tuple(found)


@cache
def by_id() -> dict[str, Thing]:
    return {thing.id: thing for thing in things()}
