#!/usr/bin/env python3
"""Draws the four pictures of the book: docs/pictures/draw.py, in any folder, with Python 3 alone.

Each is one SVG that follows the reader's light or dark scheme. Change a picture here, run the script, look at the
result in a browser in both schemes, and commit both.
"""

from pathlib import Path
from xml.sax.saxutils import escape

HERE = Path(__file__).resolve().parent
LINE = 17

STYLE = """
.back { fill: #ffffff } .frame { fill: #f6f8fa; stroke: #d0d7de }
.box { fill: #ddf4ff; stroke: #54aeff } .good { fill: #dafbe1; stroke: #4ac26b }
.bad { fill: #ffebe9; stroke: #ff8182 } .ring { fill: #fff8c5; stroke: #d4a72c } .plain { fill: #eaeef2; stroke: #8c959f }
.line { stroke: #57606a; fill: none; stroke-width: 1.4 } .dash { stroke-dasharray: 5 4 } .tip { fill: #57606a }
text { font: 12.5px sans-serif; fill: #24292f } .head { font-weight: bold } .title { font: bold 16px sans-serif }
.note { fill: #57606a; font-size: 12px } .code { font-family: monospace; font-size: 12px }
@media (prefers-color-scheme: dark) {
.back { fill: #0d1117 } .frame { fill: #161b22; stroke: #30363d }
.box { fill: #0c2d4d; stroke: #388bfd } .good { fill: #0f2e1a; stroke: #3fb950 }
.bad { fill: #3c1618; stroke: #f85149 } .ring { fill: #341f00; stroke: #bb8009 } .plain { fill: #21262d; stroke: #6e7681 }
.line { stroke: #8b949e } .tip { fill: #8b949e } text { fill: #e6edf3 } .note { fill: #9ea7b3 }
}
"""


class Picture:
    """One SVG that grows by calls."""

    def __init__(self, name, width, height, title, alt):
        self.name, self.parts = name, []
        self.parts.append(
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
            f'height="{height}" role="img" aria-label="{escape(alt)}">'
        )
        self.parts.append(f"<style>{STYLE}</style>")
        self.parts.append(
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
            'orient="auto-start-reverse"><path class="tip" d="M0 0 L8 4 L0 8 z"/></marker></defs>'
        )
        self.parts.append(f'<rect class="back" width="{width}" height="{height}"/>')
        self.text(16, 26, title, "title")

    def text(self, x, y, words, kind="", anchor="start"):
        cls = f' class="{kind}"' if kind else ""
        end = "" if anchor == "start" else f' text-anchor="{anchor}"'
        self.parts.append(f'<text x="{x}" y="{y}"{cls}{end}>{escape(words)}</text>')

    def lines(self, x, y, lines, kind="note", anchor="start"):
        for i, words in enumerate(lines):
            self.text(x, y + i * LINE, words, kind, anchor)

    def frame(self, x, y, w, h, head=""):
        self.parts.append(f'<rect class="frame" x="{x}" y="{y}" width="{w}" height="{h}" rx="8"/>')
        if head:
            self.text(x + 12, y + 20, head, "head")

    def box(self, x, y, w, h, head, lines=(), kind="box"):
        self.parts.append(f'<rect class="{kind}" x="{x}" y="{y}" width="{w}" height="{h}" rx="6"/>')
        top = y + h / 2 - (len(lines) * LINE) / 2 + 4.5
        self.text(x + w / 2, top, head, "head", "middle")
        for i, words in enumerate(lines):
            self.text(x + w / 2, top + (i + 1) * LINE, words, "note", "middle")

    def arrow(self, points, dashed=False, both=False):
        path = " L".join(f"{x} {y}" for x, y in points)
        cls = "line dash" if dashed else "line"
        start = ' marker-start="url(#tip)"' if both else ""
        self.parts.append(f'<path class="{cls}" d="M{path}" marker-end="url(#tip)"{start}/>')

    def rule(self, x, y1, y2):
        self.parts.append(f'<path class="line" d="M{x} {y1} L{x} {y2}"/>')

    def save(self):
        path = HERE / f"{self.name}.svg"
        path.write_text("\n".join([*self.parts, "</svg>", ""]), encoding="utf-8")
        print(path.name)


def page():
    p = Picture("page", 960, 620, "The life of a page in the engine",
                "A page is queued, cut into chunks, posted, completed, validated, and returned with a result")
    x, w = 40, 330
    steps = [
        (48, "Batch::read(page, slot)", ["bounds and layouts are checked here, once"], "box"),
        (124, "submit(batch, deadline)", ["the engine owns the slot from here on"], "box"),
        (200, "queued at its peer", ["until the peer's turn, by class (urgent, background)"], "plain"),
        (276, "a run is posted", ["chunks to the rail that finishes first: one commit, one doorbell"], "box"),
        (352, "outstanding on a lane", ["each chunk has one record in the lane's ring"], "plain"),
        (428, "all chunks have completed", ["the bytes are in the slot, not yet believed"], "box"),
        (504, "validating READ", ["16 bytes of the owner's table, up to 64 entries a READ"], "box"),
    ]
    w = 400
    for y, head, lines, kind in steps:
        p.box(x, y, w, 50, head, lines, kind)
    for (y, *_), (below, *_) in zip(steps, steps[1:]):
        p.arrow([(x + w / 2, y + 50), (x + w / 2, below)])
    right, rw = 600, 330
    p.box(right, 48, rw, 66, "done: the batch comes back", ["with a result for each page, and its slot"], "good")
    p.box(right, 504, rw, 50, "Ok: the page that was asked for", ["generation and key tag are the expected ones"], "good")
    p.box(right, 428, rw, 50, "Miss", ["the slot was overwritten, or the location is stale"], "bad")
    p.box(right, 352, rw, 50, "the lane has failed", ["its QP is flushed or destroyed first"], "bad")
    p.box(right, 276, rw, 50, "Fault, SetAside", ["the memory there cannot be read"], "bad")
    p.box(right, 200, rw, 50, "Deadline, PeerGone", ["what is not posted is cancelled"], "bad")
    p.arrow([(x + w, 529), (right, 529)])
    p.text(x + w + 10, 546, "the entry matches", "note")
    p.arrow([(x + w, 514), (x + w + 24, 514), (x + w + 24, 453), (right, 453)])
    p.text(x + w + 34, 445, "it differs", "note")
    p.arrow([(x + w, 385), (right, 385)])
    p.text(x + w + 10, 402, "an error completion", "note")
    p.arrow([(right, 362), (x + w + 130, 362), (x + w + 130, 301), (x + w, 301)], dashed=True)
    p.text(x + w + 10, 293, "posted again elsewhere", "note")
    p.arrow([(right + rw / 2, 352), (right + rw / 2, 326)])
    p.text(right + rw / 2 + 8, 344, "the page's own fault", "note")
    p.arrow([(x + w, 225), (right, 225)])
    p.text(x + w + 10, 217, "the deadline passes", "note")
    for y in (225, 301, 453, 529):
        p.parts.append(f'<path class="line" d="M{right + rw} {y} L{right + rw + 14} {y}"/>')
    p.arrow([(right + rw + 14, 529), (right + rw + 14, 81), (right + rw, 81)])
    p.lines(40, 584, [
        "A batch is done when every chunk of every page is accounted for: arrived, or known never to be written. A late page "
        "is reported at",
        "its deadline; its slot comes back only when no hardware can write into it. Without a table entry the two validating "
        "steps are left out.",
    ])
    p.save()


def lane():
    p = Picture("lane", 960, 560, "The states of a lane (one QP), and what moves it",
                "A lane is unopened, up, failing, draining or closing, quiet, and free again")
    p.box(40, 60, 200, 56, "Unopened", ["connected, in no engine yet"], "plain")
    p.box(380, 60, 200, 56, "Up", ["READs are posted"], "good")
    p.box(380, 190, 200, 56, "Failing", ["takes no more work"], "bad")
    p.box(380, 320, 200, 56, "Draining", ["a drain wr is posted last"], "bad")
    p.box(700, 255, 200, 56, "Closing", ["QP is being destroyed"], "bad")
    p.box(380, 450, 200, 56, "Quiet", ["writes no more"], "plain")
    p.box(40, 450, 200, 56, "Free", ["ids have a new generation"], "plain")
    p.arrow([(240, 88), (380, 88)])
    p.lines(250, 62, ["Engine::attach,"], "note")
    p.text(250, 80, "Provider::open", "note")
    p.arrow([(480, 116), (480, 190)])
    p.lines(40, 150, [
        "an error completion · no completion for `stall` (1 s)",
        "a commit that was accepted in part · RailDown",
        "the peer is removed · the device failed the QP by itself",
    ])
    p.text(492, 152, "The provider is asked to move the QP to the", "note")
    p.text(492, 169, "error state. Its control thread does it.", "note")
    p.arrow([(480, 246), (480, 320)])
    p.text(250, 288, "LaneFailed: the drain wr is posted", "note")
    p.arrow([(480, 376), (480, 450)])
    p.text(196, 418, "the drain wr came back: all before it is flushed", "note")
    p.arrow([(580, 218), (800, 218), (800, 255)])
    p.text(592, 210, "no LaneFailed within `drain` (1 s)", "note")
    p.arrow([(580, 348), (800, 348), (800, 311)])
    p.lines(592, 366, ["no drain wr within `drain`, or it was refused"])
    p.arrow([(900, 283), (926, 283), (926, 478), (580, 478)])
    p.text(640, 470, "LaneClosed, or the drain wr after all", "note")
    p.arrow([(380, 478), (240, 478)])
    p.lines(252, 448, ["QP destroyed and"])
    p.text(252, 466, "no work left", "note")
    p.lines(592, 76, ["nothing is posted while it is silent (10 ms or", "8 times the expected time), or while it is kept",
                      "for wrs that are suspected of killing lanes"])
    p.lines(40, 532, ["Red: the QP may still write. Nothing that the lane had is posted elsewhere, and no slot is given "
                      "back, before the lane is quiet."])
    p.save()


def session():
    p = Picture("session", 960, 720, "Producer and reader: from the first byte to a page",
                "The reader connects by TCP, agrees with the producer, makes lanes, and READs pages and table entries")
    left, right = 220, 740
    p.box(left - 130, 44, 260, 46, "reader", ["a decode node"])
    p.box(right - 130, 44, 260, 46, "producer", ["a prefill node"])
    p.rule(left, 90, 684)
    p.rule(right, 90, 684)

    def message(y, head, note, back=False, dashed=False, both=False):
        ends = [(right, y), (left, y)] if back else [(left, y), (right, y)]
        p.arrow(ends, dashed, both)
        p.text((left + right) / 2, y - 6, head, "head", "middle")
        p.text((left + right) / 2, y + 15, note, "note", "middle")

    p.text(20, 120, "TCP: the session", "head")
    message(126, "Hello", "versions, key id, the first message of Noise")
    message(166, "Welcome", "the producer has proved that it holds the key; what follows is encrypted", back=True)
    message(206, "Introduction", "the layouts that it knows; the reader has proved that it holds the key")
    message(246, "Offer, Pool, Regions, Offered", "epoch, rails, addresses and keys of the pages and of their table", back=True)
    message(292, "Lanes", "64 bytes of each lane's end: QP number, PSN, GID, MTU, READ depth")
    message(332, "LanesReady", "sent when the producer's ends can receive", back=True)
    message(374, "Alive", "every two seconds, both ways; eight seconds without a byte end the session", both=True)
    p.frame(left, 406, right - left, 220)
    p.rule(left, 406, 626)
    p.rule(right, 406, 626)
    p.text(20, 424, "rails: one-sided READs", "head")
    p.lines(20, 444, ["the producer's", "processor takes", "no part in these"])
    p.lines(right + 12, 424, ["Publisher::write, any time:", "entry invalid, bytes,", "entry valid in a new", "generation"])
    message(432, "a Location", "slot, generation, key tag: sent however the application likes", back=True, dashed=True)
    message(482, "READ the chunks of the page", "over every rail that both have")
    message(522, "bytes", "into the slot", back=True)
    message(562, "READ the table entry", "after the last byte")
    message(602, "generation, key tag", "as the location says: a page; anything else: a miss", back=True)
    message(654, "Bye", "or the connection ends: pages still under way fail as PeerGone", both=True)
    p.lines(20, 706, ["A lane that fails later is replaced by Lanes and LanesReady again, with growing pauses, while "
                      "reading goes on over the others."])
    p.save()


def threads():
    p = Picture("threads", 960, 640, "Threads, and the rings that join them",
                "The reader's thread is joined to submitters, the sessions' threads, rail workers and the control thread by rings")
    p.frame(20, 44, 920, 372, "the reader's process")
    p.box(360, 176, 230, 88, "the reader's thread", ["poll, submit, wait: the engine.", "No lock and no allocation",
                                                   "per batch or poll."], "good")
    p.box(40, 84, 220, 50, "submitter", ["a thread of the application"], "box")
    p.box(40, 150, 220, 50, "submitter", ["as many as max_submitters"], "box")
    p.box(286, 92, 50, 34, "rings", (), "ring")
    p.box(286, 158, 50, 34, "rings", (), "ring")
    p.arrow([(260, 109), (286, 109)], both=True)
    p.arrow([(260, 175), (286, 175)], both=True)
    p.arrow([(336, 109), (430, 109), (430, 176)], both=True)
    p.arrow([(336, 175), (348, 175), (348, 196), (360, 196)], both=True)
    p.lines(286, 64, ["orders there, outcomes back:", "a pair of wait-free rings each"])
    p.box(40, 316, 220, 66, "kvrail-peers", ["one thread for all sessions:", "offers, Alive, lanes to be made"], "box")
    p.box(40, 232, 220, 50, "kvrail-dialers", ["make lanes, two at once on a rail"], "box")
    p.arrow([(150, 282), (150, 316)], both=True)
    p.arrow([(260, 340), (420, 340), (420, 264)])
    p.lines(268, 334, ["mailbox, then wake"])
    p.arrow([(470, 264), (470, 366), (260, 366)])
    p.lines(268, 384, ["lock, then eventfd"])
    p.box(700, 84, 220, 66, "kvrail-rail-R (shm, tcp)", ["a thread per rail, in a NIC's", "place: it copies the bytes"], "box")
    p.box(630, 96, 46, 34, "rings", (), "ring")
    p.arrow([(560, 176), (560, 113), (630, 113)], both=True)
    p.arrow([(676, 113), (700, 113)], both=True)
    p.lines(612, 150, ["READs there,", "completions back"])
    p.box(700, 196, 220, 50, "the NIC (verbs)", ["one completion queue a rail"], "plain")
    p.arrow([(590, 221), (700, 221)], both=True)
    p.lines(598, 213, ["post, poll"])
    p.box(700, 296, 220, 86, "kvrail-verbs", ["the control thread: fails and", "destroys QPs, and hears",
                                             "the devices' events"], "box")
    p.box(618, 316, 50, 34, "rings", (), "ring")
    p.arrow([(560, 264), (560, 333), (618, 333)], both=True)
    p.arrow([(668, 333), (700, 333)], both=True)
    p.lines(574, 370, ["orders there,", "events back"])
    p.arrow([(810, 296), (810, 246)])
    p.text(818, 276, "system calls", "note")

    p.frame(20, 440, 920, 150, "the producer's process")
    p.box(40, 478, 200, 84, "the application", ["Publisher::write: the table", "and the pages, by itself"], "good")
    p.box(270, 478, 190, 84, "kvrail-listen", ["has the listening socket in", "a table of its own, which", "no fork inherits"], "box")
    p.box(490, 478, 200, 84, "kvrail-sessions", ["one thread for all readers:", "handshakes, offers, Alive"], "box")
    p.box(720, 478, 200, 84, "kvrail-lanes", ["make the producer's ends of", "lanes: a few threads"], "box")
    p.arrow([(460, 520), (490, 520)])
    p.arrow([(690, 520), (720, 520)], both=True)
    p.lines(20, 612, ["No thread of the producer serves a READ over shm or verbs: the reader's worker copies from memory that both "
                      "have mapped, or the NIC reads it.",
                      "Over tcp the producer has a thread for each lane (kvrail-tcp-conn)."])
    p.save()


if __name__ == "__main__":
    page()
    lane()
    session()
    threads()
