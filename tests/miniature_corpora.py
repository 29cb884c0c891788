"""Miniatures of the paper's corpora, FLEURS and Common Voice, laid out as the scripts of examples/paper expect them.

Every function writes one below a folder and returns the command line that prepares it, without --out. Audio is tones and noise.
"""

import csv
import importlib
import io
import sys
import tarfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import soundfile as sf

PAPER = Path(__file__).parents[1] / "examples" / "paper"
RATE = 16_000


def script(name: str) -> ModuleType:
    """Returns a script of examples/paper as a module."""
    if str(PAPER) not in sys.path:
        sys.path.append(str(PAPER))
    return importlib.import_module(name)


def tone(seconds: float, pitch: float, name: str, rate: int = RATE) -> np.ndarray:
    """Returns samples of a tone in a little noise; the noise of two names differs, so that no two clips are the same."""
    samples = 0.2 * np.sin(2 * np.pi * pitch * np.arange(round(seconds * rate)) / rate)
    noise = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(len(samples))
    return (samples + 0.01 * noise).astype(np.float32)


def write_audio(path: Path, seconds: float, pitch: float = 300.0) -> Path:
    """Writes a file of one channel at 16 kHz; its format is that of its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sf.write(path, tone(seconds, pitch, f"{path.parent.name}/{path.name}"), RATE)
    return path


def write_text(path: Path, lines: Iterable[str]) -> Path:
    """Writes lines in UTF-8."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def write_csv(path: Path, rows: Iterable[Sequence[object]]) -> Path:
    """Writes a table with commas, and quotes where they are needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    return path


def encoded(seconds: float, pitch: float, name: str) -> bytes:
    """Returns the bytes of a wav file."""
    buffer = io.BytesIO()
    sf.write(buffer, tone(seconds, pitch, name), RATE, format="WAV")
    return buffer.getvalue()


def write_parquet(path: Path, rows: list[dict[str, object]]) -> Path:
    """Writes a parquet file with audio cells, struct(bytes, path), as the hub's conversions have them."""
    import pyarrow
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


# SEAME

SEAME_TRAIN, SEAME_TEST = "NI01MAX_0101", "01NC01FBX_0101"


def seame(root: Path, *, form: int = 2) -> list[str]:
    """Makes SEAME in one of the two forms: two recordings of 20 s, one of each phase, and lists that are off by 2."""
    corpus = root / "LDC2015S04"
    parts = {1: ("seame_d2/data/interview", "seame_d1/data/conversation"), 2: ("data/interview", "data/conversation")}[form]
    names = ("transcript/phaseI", "transcript/phaseII") if form == 2 else ("transcript", "transcript")
    for part, recording, pitch in zip(parts, (SEAME_TRAIN, SEAME_TEST), (310, 520), strict=True):
        write_audio(corpus / part / "audio" / f"{recording}.flac", 20, pitch)
    write_text(corpus / parts[0] / names[0] / f"{SEAME_TRAIN}.txt", [
        f"{SEAME_TRAIN}\t0\t2000\t我 想 去 shopping (ppl)",
        f"{SEAME_TRAIN}\t2500\t5000\tＯＫ，那 我们 go lah <v-noise> caf\u00e9's",
        f"{SEAME_TRAIN}\t5000\t7000",  # too short: no text
        f"{SEAME_TRAIN}\t7000\t9000\t这个 <unk> really",  # unclear
        f"{SEAME_TRAIN}\t9000\t11000\t(ppb) <ppl>",  # nothing but noise
        f"{SEAME_TRAIN}\t11000\t11010\ter",  # 10 ms
        f"{SEAME_TRAIN}\t12000\t14000\t我 [你] {{他}} don't #know %",
        f"{SEAME_TRAIN}\t14000\t16000\t<malay> makan <malay>",
        f"{SEAME_TRAIN}\t19000\t24000\t太 late",  # ends after the recording
    ])  # fmt: skip
    write_text(corpus / parts[1] / names[1] / f"{SEAME_TEST}.txt", [
        f"{SEAME_TEST}\t100\t2100\tCS\t你 要 coffee 吗\t",
        f"{SEAME_TEST}\t3000\t5000\tEN\tyes please <unk>",
        f"{SEAME_TEST}\t6000\t8000\tZH\t好 的",
        f"{SEAME_TEST}\t9000\t11000\tCS\t不在 list 里",
    ])  # fmt: skip
    lists = root / "SEAME-dev-set"
    write_text(lists / "train" / "wav_file.txt", [f"/somewhere/interview/{SEAME_TRAIN}/wav.scp"])
    spoken = SEAME_TEST.lower()
    write_text(lists / "dev_man" / "text", [f"nc01f-{spoken}-00012-00208 你 要 coffee 吗", f"nc01f-{spoken}-00600-00800 好 的"])
    write_text(lists / "dev_sge" / "text", [f"nc01f-{spoken}-00298-00502 yes please", f"nc01f-{spoken}-01700-01900 not there"])
    return ["--corpus", str(corpus), "--lists", str(lists)]


# Fisher

FISHER_CALLS = ("20051017_215732_274_fsp", "20051009_182032_217_fsp", "20051010_212418_225_fsp", "20051016_180547_265_fsp")
FISHER_PITCHES = (300.0, 700.0)
TDF_HEADER = (
    "file;unicode\tchannel;int\tstart;float\tend;float\tspeaker;unicode\tspeakerType;unicode\tspeakerDialect;unicode\t"
    "transcript;unicode\tsection;int\tturn;int\tsegment;int\tsectionType;unicode",
    ";;MM sectionTypes\t[None, None]",
    ";;MM sectionBoundaries\t[0.0, 9999999.0]",
)
FISHER_ROWS = (
    (1, 0.0, 2.0, '<foreign lang="English"> Audrey </foreign>, \u00bfqu\u00e9 TAL?'),
    (0, 2.5, 4.5, 'eh <laugh>jaja</laugh> <foreing lang="English"> you know </foreing> \u00c1rbol, <lname>P\u00e9rez</lname>'),
    (0, 5.0, 7.0, "pues <foreign langenglish okay </foreign no s\u00e9"),
    (1, 7.0, 9.0, "solo espa\u00f1ol <background>perro</background> aqu\u00ed"),
    (0, 9.0, 11.0, '(( creo que )) <foreign lang="English"> maybe </foreign>'),
    (1, 11.0, 11.0, '<foreign lang="English"> empty </foreign>'),
    (0, 12.0, 13.0, "<cough/> <breath/>"),
    (1, 14.0, 16.0, '<strange> qu\u00e9 </strange> <foreign lang="English"> don\'t </foreign>'),
    (1, 17.0, 19.0, 'voy al <foreign lang="English"> shopping center'),
)


def fisher(root: Path) -> list[str]:
    """Makes Fisher Spanish: calls of 30 s in mu-law SPHERE with a tone of its own on each channel, tdf files, table, lists."""
    speech, transcripts = root / "LDC2010S01" / "DISC1" / "data" / "speech", root / "LDC2010T04" / "fisher_spa_tr" / "data"
    speech.mkdir(parents=True)
    table = ["CALL,DATE,PIN_A,SEX_A,DIALECT_A,PHONE_A,SERVICE_A,HANDSET_A,PIN_B"]
    for number, call in enumerate(FISHER_CALLS):
        sides = np.stack([tone(30, pitch, f"{call}-{pitch}", 8000) for pitch in FISHER_PITCHES], 1)
        sf.write(speech / f"{call}.sph", sides, 8000, format="NIST", subtype="ULAW")
        rows = [
            f"{call}.sph\t{channel}\t{start}\t{end}\tName\tfemale\tnative\t{text}\t0\t{turn}\t-1\t"
            for turn, (channel, start, end, text) in enumerate(FISHER_ROWS)
        ]
        write_text(transcripts / "transcripts" / f"{call}.tdf", [*TDF_HEADER, *rows[:2], "", *rows[2:]])
        table.append(f"{call.split('_')[2]},20051017,{1000 + number},F,x,x,x,x,{2000 + number}")
    write_text(transcripts / "doc" / "fsp_call.tbl", table)
    lists = root / "split_fisher"
    for split, call in zip(("train", "dev", "dev2", "test"), FISHER_CALLS, strict=True):
        write_text(lists / split, [f"{call}.sph"])
    return ["--speech", str(root / "LDC2010S01"), "--transcripts", str(root / "LDC2010T04"), "--lists", str(lists)]


# ArzEn

ARZEN_TEXTS = (
    "\u0627\u0644+meeting \u0643\u064e\u0627\u0646 [\u0647\u0647\u0647] good",
    "\u0623\u0646\u0627 (um) busy",
    "yes \u0637\u0628\u0639\u0627",
    "okay",
)


def arzen_parquet(root: Path) -> list[str]:
    """Makes the hub's copy of ArzEn: one split of 4 rows in two files."""
    folder = root / "arzen-llm-speech-ds" / "data"
    rows: list[dict[str, object]] = []
    for number, text in enumerate(ARZEN_TEXTS):
        audio = {"bytes": encoded(1 + 0.5 * number, 200 + 90 * number, f"arzen{number}"), "path": f"{number}.wav"}
        rows.append({"audio": audio, "sentence": text})
    write_parquet(folder / "train-00000-of-00002.parquet", rows[:2])
    write_parquet(folder / "train-00001-of-00002.parquet", rows[2:])
    return ["--parquet", str(folder.parent)]


def arzen_table(root: Path) -> list[str]:
    """Makes a folder of wavs with a table: 4 clips of 3 speakers, a line without audio, a line that is too short."""
    audio = root / "ArzEn" / "wavs"
    lines = ["file\tspeaker\ttext"]
    for number, text in enumerate(ARZEN_TEXTS):
        write_audio(audio / f"speaker{number % 3}" / f"clip{number}.wav", 1.5, 210 + 70 * number)
        lines.append(f"clip{number}\tspeaker{number % 3}\t{text}")
    table = write_text(root / "ArzEn" / "transcripts.tsv", [*lines, "clip9\tspeaker0\tgone", "clip3"])
    return ["--audio", str(audio), "--table", str(table)]


# ASCEND


def ascend(root: Path) -> list[str]:
    """Makes ASCEND: three tables with all three languages each, wavs, a path of an older revision, and a row without wav."""
    corpus = root / "ASCEND"
    header = ("file_name", "transcription", "duration", "language", "original_speaker_id", "session_id", "topic")
    texts = (("呃 我 想 [UNK] 一下", "zh"), ("well, you know", "en"), ("我 觉得 ok 吧", "mixed"), ("然后 so", "mixed"))
    for split, pitch in (("train", 300), ("validation", 400), ("test", 500)):
        rows: list[Sequence[object]] = [header]
        for number, (text, language) in enumerate(texts):
            name = f"ses{pitch}_spk17_L38{number}_15.3200_1.5.wav"
            write_audio(corpus / "waves" / name, 1.5, pitch + 20 * number)
            folder = "waves" if number != 3 else f"{split}/old"
            rows.append((f"{folder}/{name}", text, 1.5, language, 17 + pitch, 1, "persona"))
        rows.append(("waves/gone.wav", "gone", 1.0, "zh", 17, 1, "persona"))
        write_csv(corpus / f"{split}_metadata.csv", rows)
    write_csv(corpus / "speakers.csv", [("id", "gender"), (17, "F")])
    return ["--corpus", str(corpus)]


# TALCS


def talcs(root: Path) -> list[str]:
    """Makes TALCS: 3 sets of 4 wavs, one without a line, and one line without a wav."""
    corpus = root / "TALCS_corpus"
    for name, pitch in (("train_set", 300), ("dev_set", 450), ("test_set", 600)):
        for number in range(4):
            write_audio(
                corpus / name / "wav" / f"part{number % 2}" / f"{name}-{number}.wav", 1 + 0.25 * number, pitch + 15 * number
            )
        write_text(corpus / name / "label.txt", [
            f"{name}-0 我们 来看 《 Ａpple 》 ， it‘s an-apple。",
            f"{name}-1\t这是  what ？",
            f"{name}-2 Let's 、 go!",
            f"{name}-9 no wav",
        ])  # fmt: skip
    return ["--corpus", str(corpus)]


# TunSwitch


def tunswitch(root: Path) -> list[str]:
    """Makes TunSwitch: tables with paths of another machine, wavs of one name in two parts, and an annotation."""
    corpus, header = root / "TunSwitch", ["ID", "duration", "start", "wav", "spk_id", "wrd", "char"]
    annotation: list[Sequence[object]] = [("ID", "languages")]
    texts = ("\u0628\u0631\u0634\u064e\u0627 merci, beaucoup !", "c'est \u062a\u0648\u0627 okay", "\u0646\u062d\u0628 le Parking")
    for part, base in (("cs", 300), ("to", 800)):
        for split, pitch in (("train", 0), ("validation", 100), ("test", 200)):
            rows: list[Sequence[object]] = [header]
            audio = (
                corpus / ("test_wavs" if split == "test" else f"TunSwitch{part.upper()}") / ("wavs" if split != "test" else part)
            )
            for number, text in enumerate(texts):
                name = f"{split}{number}.wav"  # the same name in both parts
                write_audio(audio / name, 1.5, base + pitch + 20 * number)
                foreign = Path("/gpfswork/someone", *audio.parts[-2:], name)
                rows.append((f"{part}_{split}_{number}", 1.5, 0, foreign, "spk", text, " ".join(text)))
                if part == "cs":
                    annotation.append((f"{part}_{split}_{number}", ("tn fr fr fr", "fr tn en", "tn fr")[number]))
            rows.append((f"{part}_{split}_9", 1.5, 0, "/gpfswork/someone/wavs/gone.wav", "spk", "gone", ""))
            write_csv(corpus / f"{split}_{part}.csv", rows)
    return ["--corpus", str(corpus), "--annotation", str(write_csv(corpus / "annotation.csv", annotation))]


# FLEURS: (configuration, split) -> rows of (sentence id, file, raw transcription, transcription)

FLEURS = {
    ("cmn_hans_cn", "train"): [
        (1, "a1.wav", "今天天气很好。", "今 天 天 气 很 好"),
        (2, "a2.wav", "他去了Paris。", "他 去 了 paris"),
        (7, "a7.wav", "这句在测试里。", "这 句 在 测 试 里"),  # read by another reader in test
    ],
    ("cmn_hans_cn", "dev"): [(3, "b3.wav", "三点见。", "三 点 见")],
    ("cmn_hans_cn", "test"): [
        (7, "c7.wav", "这句在测试里。", "这 句 在 测 试 里"),
        (7, "c7b.wav", "这句在测试里。", "这 句 在 测 试 里"),  # two readers on one side
        (8, "c8.wav", "再见。", "再 见"),
    ],
    ("es_419", "train"): [(1, "d1.wav", "Hola a \"todos\".", "hola a todos")],
    ("es_419", "dev"): [(2, "e2.wav", "Dos veces.", "dos veces")],
    ("es_419", "test"): [(4, "f4.wav", "Adi\u00f3s, amigos.", "adi\u00f3s amigos"), (5, "f5.wav", "Bien.", "bien")],
}  # fmt: skip


def fleurs_parquet(root: Path, more: Sequence[str] = ()) -> list[str]:
    """Makes FLEURS as the hub converts it: a folder a configuration and split; of `more` configurations a test split only."""
    others = {(language, "test"): [(9, f"{language}.wav", "Hello.", "hello")] for language in more}
    for (language, split), sentences in {**FLEURS, **others}.items():
        rows = [
            {"id": sentence, "num_samples": 24000, "path": f"/somewhere/{name}", "transcription": spaced,
             "raw_transcription": raw, "audio": {"bytes": encoded(1.5, 250 + 60 * number, f"{language}/{name}"), "path": name},
             "gender": 1, "lang_id": 9,
             "language": "Any", "lang_group_id": 1}
            for number, (sentence, name, raw, spaced) in enumerate(sentences)
        ]  # fmt: skip
        write_parquet(root / "fleurs" / language / {"dev": "validation"}.get(split, split) / "0000.parquet", rows)
    return ["--corpus", str(root / "fleurs"), "--languages", "cmn_hans_cn", "es_419", *more]


def fleurs_tar(root: Path) -> list[str]:
    """Makes FLEURS as it lies in the hub's main revision: a tsv without header and a tar a configuration and split."""
    for (language, split), sentences in FLEURS.items():
        data = root / "fleurs" / "data" / language
        write_text(data / f"{split}.tsv", [
            f"{sentence}\t{name}\t{raw}\t{spaced}\t{' '.join(spaced)} |\t24000\tMALE" for sentence, name, raw, spaced in sentences
        ])  # fmt: skip
        (data / "audio").mkdir(exist_ok=True)
        with tarfile.open(data / "audio" / f"{split}.tar.gz", "w:gz") as archive:
            for number, (_, name, _, _) in enumerate(sentences):
                content = encoded(1.5, 250 + 60 * number, f"{language}/{name}")
                member = tarfile.TarInfo(f"{split}/{name}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return ["--corpus", str(root / "fleurs"), "--languages", "cmn_hans_cn", "es_419"]


# Common Voice

LOCALES = {
    "es": ("Hola, \u00bfqu\u00e9 tal?", 'Dijo "s\u00ed', '"Bueno."', "Adi\u00f3s"),  # an open quote
    "tr": ("Merhaba d\u00fcnya", "G\u00fcnayd\u0131n", "Te\u015fekk\u00fcrler", "Tamam"),
    "zh-CN": ("你好。", "再见。", "谢谢你。", "早上好。"),
}


def common_voice(root: Path) -> list[str]:
    """Makes Common Voice: three locales of 4 clips, one of zero bytes; nothing is quoted."""
    corpus = root / "cv-corpus-22.0"
    columns = "client_id path sentence_id sentence sentence_domain up_votes down_votes age gender accents variant locale segment"
    for base, (locale, sentences) in enumerate(LOCALES.items()):
        lines = [columns.replace(" ", "\t")]
        for number, sentence in enumerate(sentences):
            name = f"common_voice_{locale}_{number}.mp3"
            path = write_audio(corpus / locale / "clips" / name, 1.5, 220 + 200 * base + 30 * number)
            if number == 3:
                path.write_bytes(b"")
            lines.append(f"client{number}\t{name}\tid{number}\t{sentence}\t\t2\t0\t\t\t\t\t{locale}\t")
        write_text(corpus / locale / "test.tsv", lines)
        write_text(corpus / locale / "validated.tsv", lines)
    return ["--corpus", str(corpus), "--locales", *LOCALES]
