"""The command line without a server: its help, and one line for everything that is wrong."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from group_scores.runners import cli
from group_scores.runners.command import Terminated, ending
from group_scores.stores import AddressError, ServiceUnavailableError
from tests.command_line import invoke, refused, succeed

COMMANDS = ("run", "replay", "verify", "dump", "show", "simulate", "worker-pool", "serve", "report")
RUN = ("run", "--source", "events.jsonl", "--store", "sqlite:scores.db")
TOPIC = ("run", "--source", "kafka://a:1,b:1/t", "--store", "sqlite:scores.db")
REPLAY = ("replay", "--from", "events.jsonl", "--store", "sqlite:scores.db")
SERVE = ("serve", "--store", "sqlite:x.db", "--groups", "sample")
SERVED = ("serve", "--store", "sqlite:served.db", "--listen", "127.0.0.1:0")
SIMULATE = ("simulate", "--events", "1", "--seed", "1", "--to", "made.jsonl")
LONG = "x" * 5000


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with one valid event."""
    monkeypatch.chdir(tmp_path)
    for number in (1, 2):
        to = f"events{'' if number == 1 else number}.jsonl"
        succeed("simulate", "--events", "1", "--seed", str(number), "--to", to)
    (tmp_path / "folder").mkdir()
    (tmp_path / "packed.jsonl.zst").write_bytes(b"x")
    (tmp_path / "text.jsonl.gz").write_bytes(b"not gzip at all\n")
    (tmp_path / "groups.json").write_text('{"groups": 7}')
    (tmp_path / "served.db").touch()
    return tmp_path


class TestHelp:
    def test_names_every_command_in_the_order_of_their_use(self) -> None:
        done = succeed("--help")
        listed = re.findall(r"^  ([\w-]+)  ", done.out.partition("Commands:")[2], re.MULTILINE)
        assert tuple(listed) == COMMANDS
        assert "Usage: group-scores [OPTIONS] COMMAND" in done.out
        assert "..." not in done.out.partition("Commands:")[2].partition("Addresses:")[0]
        assert succeed("-h") == done

    @pytest.mark.parametrize("name", COMMANDS)
    def test_of_a_command_fits_a_screen_and_needs_nothing(self, name: str) -> None:
        done = succeed(name, "--help")
        assert max(map(len, done.out.splitlines())) <= 80
        assert len(done.out.splitlines()) <= 50
        assert succeed(name, "-h") == done

    @pytest.mark.parametrize("name", ["run", "replay"])
    def test_says_every_option_of_the_contract_with_its_default(self, name: str) -> None:
        text = " ".join(succeed(name, "--help").out.split())
        for option, default in {
            "--dead-letter": "dead-letter.jsonl; for Kafka the topic TOPIC.failed"
            if name == "run"
            else "NAME.again.jsonl beside NAME.jsonl; for Kafka the topic they come from",
            "--attempts [write|await]": "write",
            "--await-s": "30",
            "--metrics": "score,max_score,attempts_count",
            "--agg-columns [auto|agg|aggregates]": "auto",
            "--agg-details [on|off]": "on where the table has it",
            "--store-retry-s": "120",
            "--cert-events": "nowhere",
            "--content-index": "not checked",
            "--summary [json]": "a table",
        }.items():
            found = re.search(re.escape(option) + r"[^[]*(\[[^]]*\|[^]]*\][^[]*)?\[([^]]*)\]", text)
            assert found, option
            assert found[2] == f"default: {default}"
        assert ("--source" if name == "run" else "--from") in text

    @pytest.mark.parametrize("words", [("run",), ("verify",), ()])
    def test_says_what_the_sources_of_all_attempts_take(self, words: tuple[str, ...]) -> None:
        text = succeed(*words, "--help").out
        assert "cassandra://HOST:PORT/KEYSPACE?course=…&batch=…&rows_s=N&taken=EPOCH_MS" in text
        assert "snapshot:DIR[,DIR]?rf=N&nodes=M&taken=EPOCH_MS" in text

    def test_has_the_defaults_that_the_options_have(self) -> None:
        defaults = {option.name: option.default for option in cli.run.params}
        assert (defaults["await_s"], defaults["store_retry_s"]) == (30, 120)
        assert defaults["attempts"] == "write"
        assert defaults["metrics"] == "score,max_score,attempts_count"
        assert defaults["agg_columns"] == "auto"

    def test_is_shown_where_there_is_no_command(self) -> None:
        done = invoke()
        assert done.code == 2
        assert done.err == succeed("--help").out

    def test_version(self) -> None:
        assert re.fullmatch(r"group-scores, version \d+\.\d+.*\n", succeed("--version").out)


WRONG: list[tuple[tuple[str, ...], str]] = [
    # commands and options
    (("runn",), "unknown command 'runn'; did you mean 'run'?"),
    (("--verbose",), "unknown option --verbose"),
    (("dump", "--tabel", "x"), "unknown option --tabel; did you mean '--table'?"),
    (("run", "--sorce", "x"), "unknown option --sorce; did you mean '--source'?"),
    ((*RUN, "--direct_num_worker", "2"), "did you mean '--direct_num_workers'?"),
    ((*RUN, "--direct_num_workers", "abc"), "--direct_num_workers: invalid int value: 'abc'"),
    ((*RUN, "--direct_num_workers", "-1"), "--direct_num_workers is below 0"),
    ((*RUN, "--direct_running_mode", "many"), "--direct_running_mode: invalid choice: 'many'"),
    ((*RUN, "--direct_num_workers", "1", "--direct_num_workers", "2"), "workers is given twice"),
    ((*RUN, "--runner"), "--runner"),
    ((*RUN, "--runner="), "--runner has no value"),
    ((*RUN, "--runner", "FlinkRuner"), "did you mean 'FlinkRunner'?"),
    ((*RUN, "--runner", "FlinkRunner"), "FlinkRunner without --flink_master"),
    ((*RUN, "--runner", "sparkrunner"), "sparkrunner is not built yet"),
    ((*RUN, "--runner", "dataflowrunner"), "DataflowRunner needs --project"),
    ((*RUN, "-x"), "unexpected '-x'"),
    ((*RUN, "more.jsonl"), "unexpected 'more.jsonl'"),
    ((*RUN, "--store", "sqlite:other.db"), "--store is given twice"),
    ((*RUN, "--debug", "--summary"), "--summary"),
    (("run", "--source", "events.jsonl"), "--source without --store"),
    (("run", "--store", "sqlite:x.db"), "--store without --source"),
    (("replay", "--from", "events.jsonl"), "replay without --store"),
    (("replay", "--store", "sqlite:x.db"), "--from"),
    (("show", "--store", "sqlite:x.db"), "--course"),
    # values
    (("run", "--source", "", "--store", "sqlite:x.db"), "--source has no value"),
    ((*RUN, "--dead-letter", ""), "--dead-letter has no value"),
    ((*RUN, "--cert-events="), "--cert-events has no value"),
    ((*RUN, "--await-s", "-1"), "--await-s': '-1' is not a number from 0 to"),
    ((*RUN, "--await-s", "nan"), "--await-s': 'nan'"),
    ((*RUN, "--store-retry-s", "inf"), "--store-retry-s': 'inf'"),
    ((*RUN, "--store-retry-s", "soon"), "--store-retry-s': 'soon'"),
    ((*RUN, "--metrics", "scor"), "unknown metric 'scor'; did you mean 'score'?"),
    ((*RUN, "--metrics", "score,"), "unknown metric ''"),
    ((*RUN, "--attempts", "wait"), "'wait' is not one of 'write', 'await'"),
    ((*RUN, "--agg-columns", "both"), "--agg-columns"),
    ((*RUN, "--agg-details", "yes"), "--agg-details"),
    ((*RUN, "--summary", "xml"), "--summary"),
    # sources
    (("run", "--source", "kafk://h/t", "--store", "sqlite:x.db"), "did you mean 'kafka'?"),
    (("run", "--source", "kafka://h:99999/t", "--store", "sqlite:x.db"), "'99999'"),
    (("run", "--source", "kafka://h/t?pasword=x", "--store", "sqlite:x.db"), "'pasword'"),
    (("run", "--source", "kafka://h/t?password=x", "--store", "sqlite:x.db"), "in the environment"),
    (("run", "--source", "kafka://u:geheim@h/t", "--store", "sqlite:x.db"), "in the environment"),
    (("run", "--source", "kafka://h/t?until=forever", "--store", "sqlite:x.db"), "--runner Flink"),
    (("run", "--source", "cassandra://h/k?rows_s=0", "--store", "sqlite:x.db"), "rows_s=0"),
    (("run", "--source", "snapshot:d", "--store", "sqlite:x.db"), "no folder 'd'"),
    (("run", "--source", "event.jsonl", "--store", "sqlite:x.db"), "did you mean 'events.jsonl'?"),
    (("run", "--source", "no/such.jsonl", "--store", "sqlite:x.db"), "no file 'no/such.jsonl'"),
    (("run", "--source", "*.csv", "--store", "sqlite:x.db"), "no file '*.csv'"),
    (("run", "--source", "folder", "--store", "sqlite:x.db"), "folder/*.jsonl"),
    (("run", "--source", LONG, "--store", "sqlite:x.db"), "no file"),
    (("run", "--source", "packed.jsonl.zst", "--store", "sqlite:x.db"), "unpack it"),
    (("run", "--source", "text.jsonl.gz", "--store", "sqlite:x.db"), "not good gzip"),
    (("run", "--source", "\udcff\x1b[31m", "--store", "sqlite:x.db"), r"\udcff\x1b[31m"),
    # stores
    (("run", "--source", "events.jsonl", "--store", "casandra://h/k"), "did you mean 'cassandra'?"),
    (("run", "--source", "events.jsonl", "--store", "sqllite:x.db"), "did you mean 'sqlite'?"),
    (("run", "--source", "events.jsonl", "--store", "scores.db"), "is not a store"),
    (("run", "--source", "events.jsonl", "--store", "sqlite:"), "names no file"),
    (("run", "--source", "events.jsonl", "--store", "sqlite:no/x.db"), "does not exist; make it"),
    (("run", "--source", "events.jsonl", "--store", "sqlite:events.jsonl"), "not a database"),
    (("run", "--source", "events.jsonl", "--store", "sqlite:folder"), "sqlite:folder"),
    (("run", "--source", "events.jsonl", "--store", f"sqlite:{LONG}"), "sqlite:xxx"),
    (("dump", "--store", "sqlite:no.db", "--table", "attempts"), "there is no such file"),
    (("dump", "--store", f"sqlite:{LONG}", "--table", "attempts"), "there is no such file"),
    (("dump", "--store", "sqlite:events.jsonl", "--table", "attempts"), "not a database"),
    (("dump", "--store", "sqlite:events.jsonl", "--table", "scores"), "'scores' is not one of"),
    # where messages go
    ((*RUN, "--dead-letter", "refused.txt"), "name a file that ends in .jsonl"),
    ((*RUN, "--dead-letter", "kafk://h/t.jsonl"), "is not a place for messages"),
    ((*RUN, "--dead-letter", "events.jsonl"), "is being read"),
    ((*RUN, "--dead-letter", "folder/../events.jsonl"), "is being read"),
    ((*RUN, "--dead-letter", "no/x.jsonl"), "does not exist; make it"),
    ((*RUN, "--dead-letter", f"{LONG}.jsonl"), "File name too long"),
    ((*RUN, "--dead-letter", "kafka://h/t?group=x"), "drop it"),
    ((*RUN, "--cert-events", "/proc/x.jsonl"), "/proc/x.jsonl cannot be written"),
    ((*RUN, "--cert-events", "dead-letter.jsonl"), "are one place"),
    ((*RUN, "--cert-events", "events.jsonl"), "is being read"),
    (("run", "--source", "*.jsonl", "--store", "sqlite:x.db"), "dead-letter.jsonl is being read"),
    (
        (*TOPIC, "--dead-letter", "kafka://b:1/t?security=PLAINTEXT"),
        "is being read",
    ),
    (
        (*REPLAY, "--dead-letter", "events.jsonl"),
        "is being read",
    ),
    # the content index
    ((*RUN, "--content-index", "redi://h"), "write redis://HOST:PORT/DB"),
    ((*RUN, "--content-index", "redis://h:0/0"), "write redis://HOST:PORT/DB"),
    ((*RUN, "--content-index", "redis://:geheim@h/0"), "REDIS_PASSWORD"),
    # serve
    (("serve",), "group-scores.db: there is no such file"),
    (("serve", "--groups", "sample"), "--groups without --store"),
    (("serve", "--store", "sqlite:x.db"), "--store without --groups"),
    ((*SERVE[:-1], "sample"), "sqlite:x.db: there is no such file"),
    ((*SERVE, "--store", "sqlite:y.db"), "--store is given twice"),
    ((*SERVE, "--listen", "8000"), "write HOST:PORT"),
    ((*SERVE, "--listen", "127.0.0.1:99999"), "write HOST:PORT"),
    ((*SERVE, "--listen", "0.0.0.0:8000"), "without --jwks or --public-keys"),
    ((*SERVE, "--listen", "[::]:8000"), "without --jwks or --public-keys"),
    ((*SERVE, "--listen", "example.org:8000"), "without --jwks or --public-keys"),
    ((*SERVE, "--jwks", "j", "--public-keys", "k"), "give one of the two"),
    ((*SERVE, "--issuer", "i"), "--issuer is about tokens"),
    ((*SERVE, "--audience", "a"), "--audience is about tokens"),
    ((*SERVE, "--cache-s", "-1"), "--cache-s': '-1'"),
    ((*SERVE, "--cache", "redis://h/0"), "--cache without --cache-s"),
    ((*SERVE, "--cache", "memcached://h", "--cache-s", "5"), "is not a cache"),
    ((*SERVE, "--cache", "redis://u:secret@h/0", "--cache-s", "5"), "no user, password"),
    ((*SERVE, "--group-service-timeout-s", "0"), "give more"),
    ((*SERVE, "--jwk", "j"), "did you mean '--jwks'?"),
    ((*SERVED, "--groups", "sampel"), "write http(s)://BASE"),
    ((*SERVED, "--groups", "no.json"), "no.json cannot be read: No such file"),
    ((*SERVED, "--groups", "groups.json"), "is no file of groups"),
    ((*SERVED, "--groups", "http://"), "--groups http://: write http(s)://HOST"),
    ((*SERVED, "--groups", "http://me:geheim@h"), "no credentials in an address"),
    ((*SERVED, "--groups", "cassandra://h"), "names no keyspace"),
    ((*SERVED, "--groups", "kafka://h/t"), "write http(s)://BASE"),
    ((*SERVED, "--groups", "sample", "--jwks", "no.json"), "no.json cannot be read"),
    ((*SERVED, "--groups", "sample", "--jwks", "groups.json"), "is no JWKS"),
    ((*SERVED, "--groups", "sample", "--jwks", "ftp://h/x"), "--jwks ftp://h/x: write http"),
    ((*SERVED, "--groups", "sample", "--public-keys", "no"), "name a folder"),
    ((*SERVED, "--groups", "sample", "--public-keys", "folder"), "holds no file"),
    # simulate
    ((*SIMULATE[:-1], "folder"), "folder cannot be written: Is a directory"),
    ((*SIMULATE[:-1], "no/x.jsonl"), "no/x.jsonl cannot be written: No such file"),
    ((*SIMULATE[:-1], "kafk://h/t"), "is no place for events"),
    ((*SIMULATE, "--rate", "0"), "--rate"),
    ((*SIMULATE, "--rate", "nan"), "--rate"),
    ((*SIMULATE, "--invalid", "1.5"), "'1.5' is not a number from 0 to 1"),
    (("simulate", "--events", "-1", "--seed", "1", "--to", "x"), "--events"),
    (("simulate", "--events", "1", "--seed", "x", "--to", "x"), "--seed"),
]


@pytest.mark.parametrize(("words", "what"), WRONG, ids=[" ".join(w)[:90] for w, _ in WRONG])
def test_what_is_wrong_is_one_line_that_names_it(words: tuple[str, ...], what: str) -> None:
    line = refused(*words)
    assert what in line
    assert len(line) < 1000
    assert "geheim" not in line
    assert not Path("group-scores.db").exists()


def test_nothing_is_left_behind_where_nothing_was_done(folder: Path) -> None:
    refused(*RUN, "--cert-events", "/proc/x.jsonl")
    assert not (folder / "dead-letter.jsonl").exists()


class TestEnding:
    def test_is_one_line_whatever_the_error_says(self) -> None:
        line, code = ending(AddressError(f"a\nb\x1b[2J\r\n {'y' * 900} é"))
        assert code == 2
        assert line.startswith("group-scores: a b\\x1b[2J ")
        assert line.endswith("y é")
        assert "…" in line
        assert line.isprintable()
        assert len(line) < 400

    def test_shows_no_credentials(self) -> None:
        line, _ = ending(
            ServiceUnavailableError("no kafka://me:pass%21@host:1/t?ssl_password=abc&x")
        )
        assert line == "group-scores: no kafka://…@host:1/t?ssl_password=…&x"

    @pytest.mark.parametrize(
        ("error", "code"),
        [
            (AddressError("x"), 2),
            (ServiceUnavailableError("x"), 1),
            (click.UsageError("x"), 2),
            (RuntimeError("x"), 1),
            (KeyboardInterrupt(), 130),
            (Terminated(15), 143),
        ],
    )
    def test_has_the_code_of_the_contract(self, error: BaseException, code: int) -> None:
        assert ending(error)[1] == code

    def test_shows_a_traceback_with_debug_alone(self) -> None:
        words = (*RUN[:-1], "sqlite:no/x.db")
        assert "Traceback" not in invoke(*words).err
        done = invoke(*words, "--debug")
        assert done.code == 2
        assert "Traceback" in done.err
        assert done.err.splitlines()[-1] == refused(*words)
