"""The Studio's page in Gradio: calls the other rooms, holds no logic of its own."""
