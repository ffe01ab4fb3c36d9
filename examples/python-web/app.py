from flask import Flask

app = Flask(__name__)


@app.route("/")
def index():
    return "Flask in a microVM\n"


@app.route("/health")
def health():
    return "ok\n"


app.run(host="0.0.0.0", port=5000)
