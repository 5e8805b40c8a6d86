"""One frozen Settings, read once: a TOML file, then `VERBALE_*` environment variables over it.

An unknown name, in either place, is refused: a misspelt setting that is silently ignored is how an unsafe default stays.
`docs/operations.md` documents each; a test holds the two together.
"""

from __future__ import annotations

import ipaddress
import os
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from app.domain.errors import UnsafeSettings
from app.domain.lease import MAX_LEASE_S, MIN_LEASE_S
from app.domain.retention import parse_rules
from app.domain.statement import is_origin
from app.domain.states import STATES

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX: Final = "VERBALE_"
SETTINGS_VARIABLE: Final = "VERBALE_SETTINGS"
"""Names the settings file; the one variable that is not itself a setting."""

MAX_RETENTION_DAYS: Final = 3_650


MAX_RETRIES: Final = 50
DAY_S: Final = 86_400
MAX_LOG_DAYS: Final = 3_650


@dataclass(frozen=True, slots=True)
class Settings:
    """What one node needs to know. Paths are absolute once loaded; relative ones count from the settings file."""

    state: str = field(metadata={"doc": "Alpha-2 code of the State that runs this node."})
    origin: str = field(
        metadata={
            "doc": "Origin of the own log, `<host>/log/<epoch>`. Changed by `verbale node next-epoch` alone."
        }
    )
    data_dir: Path = field(
        metadata={"doc": "Folder of this node: keys, roster, and the SQLite database by default."}
    )
    public_url: str = field(
        metadata={"doc": "URL under which peers reach this node, without a trailing slash."}
    )
    database_url: str = field(
        default="", metadata={"doc": "SQLAlchemy URL; empty is SQLite in `data_dir/verbale.db`."}
    )
    listen_host: str = field(default="127.0.0.1", metadata={"doc": "Address to listen on."})
    listen_port: int = field(default=8480, metadata={"doc": "Port to listen on."})
    roster_sources: tuple[str, ...] = field(
        default=(),
        metadata={
            "doc": "Where the roster is fetched from: URLs that end in /roster, or folders. Name several States' nodes."
        },
    )
    roster_root: Path = field(
        default=Path("root.json"),
        metadata={"doc": "The pinned root of the roster, obtained out of band; relative to data_dir."},
    )
    roster_refresh_s: int = field(default=60, metadata={"doc": "Seconds between two looks for a new roster."})
    follow_interval_s: float = field(
        default=5.0,
        metadata={"doc": "Seconds between two looks at a peer's log when it offers nothing by itself."},
    )
    gossip_interval_s: float = field(
        default=60.0,
        metadata={"doc": "Seconds between two looks at what a peer's witness shows of every log."},
    )
    lease_s: int = field(
        default=60,
        metadata={
            "doc": "Seconds for which the other States' nodes let nobody but this process sign for the log without hearing of it; 5 to 600."
        },
    )
    peer_timeout_s: float = field(default=10.0, metadata={"doc": "Seconds to wait for a peer's answer."})
    witnesses: tuple[str, ...] = field(
        default=(),
        metadata={"doc": "Witnesses outside the roster: `<vkey> <url>` each (C2SP tlog-witness)."},
    )
    carry_mb: int = field(
        default=64,
        metadata={
            "doc": "Megabytes of other States' sealed bodies to carry, for each log; the oldest go first. 0 carries none."
        },
    )
    carry_days: int = field(default=90, metadata={"doc": "Days after which carried bodies are dropped."})
    max_body_bytes: int = field(
        default=4 * 2**20, metadata={"doc": "Largest body of one request, decompressed."}
    )
    max_batch_bytes: int = field(
        default=256 * 2**20, metadata={"doc": "Largest body of one batch, decompressed; it is streamed."}
    )
    max_batch_lines: int = field(default=100_000, metadata={"doc": "Most notices in one batch."})
    max_notice_bytes: int = field(
        default=2 * 2**20, metadata={"doc": "Largest signed notice with its parts, as JSON."}
    )
    max_header_bytes: int = field(default=16 * 2**10, metadata={"doc": "Largest request header."})
    webhook_allow_http: bool = field(
        default=False, metadata={"doc": "Allow webhooks over plain http. For tests and intranets."}
    )
    webhook_allow_networks: tuple[str, ...] = field(
        default=(),
        metadata={"doc": "Networks (CIDR) that webhooks may reach although they are private or loopback."},
    )
    screening_index: str = field(
        default="memory",
        metadata={
            "doc": "Where what is screened against lies while the node runs: memory; disk (files in data_dir that have no name: less memory, slower)."
        },
    )
    screening_record: str = field(
        default="none",
        metadata={
            "doc": "What is kept of screenings: none; outcome (that one was made, and which notices it found); full (what was asked too)."
        },
    )
    screening_record_days: int = field(
        default=30, metadata={"doc": "Days after which a kept screening is forgotten."}
    )
    log_key: str = field(
        default="",
        metadata={
            "doc": "`pkcs11:` URI (RFC 7512) of the log key in a token, with `pin-source`; empty: the file `keys/log.key`."
        },
    )
    retention: tuple[str, ...] = field(
        default=("*=3650",),
        metadata={
            "doc": "`TYPE=DAYS` each (`*`: every other type): own notices, of earlier epochs too, are erased so many days after their end. Empty: never."
        },
    )
    event_retention_days: int = field(
        default=90, metadata={"doc": "Days for which the feed can be read back."}
    )
    webhook_require_proof: bool = field(
        default=False,
        metadata={"doc": "Send nothing but tests to an endpoint that has not proven itself."},
    )
    webhook_retry_s: tuple[str, ...] = field(
        default=(),
        metadata={
            "doc": "Seconds between the attempts of one delivery. None: 5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400."
        },
    )
    webhook_log_days: int = field(
        default=30, metadata={"doc": "Days for which finished deliveries and their attempts are kept."}
    )
    mail_host: str = field(default="", metadata={"doc": "Mail server for digests; empty: none are sent."})
    mail_port: int = field(default=587, metadata={"doc": "Its port."})
    mail_security: str = field(
        default="starttls",
        metadata={"doc": "starttls, tls (from the first byte), or none: only to this machine."},
    )
    mail_username: str = field(default="", metadata={"doc": "Name to log in with; empty: no login."})
    mail_password_file: Path = field(
        default=Path("keys/mail-password"), metadata={"doc": "File of its password; relative to data_dir."}
    )
    mail_ca: str = field(
        default="",
        metadata={
            "doc": "PEM file of the only authorities trusted for the mail server, relative to data_dir; empty: the system's."
        },
    )
    mail_from: str = field(default="", metadata={"doc": "Address that digests come from."})
    mail_digests: tuple[str, ...] = field(
        default=(),
        metadata={
            "doc": "Who is written to: `address LABEL HOURS` each, for instance `desk@ee.example TLP:GREEN 24`."
        },
    )
    background: bool = field(
        default=True,
        metadata={"doc": "Run the background loops in the server; false when `verbale worker` runs them."},
    )
    log_level: str = field(default="INFO", metadata={"doc": "DEBUG, INFO, WARNING or ERROR."})
    insecure_demo: bool = field(
        default=False,
        metadata={
            "doc": "Accept plain http between peers that are not on this machine. Never on a real node."
        },
    )

    @property
    def epoch(self) -> int:
        """The epoch of the own log, the last segment of its origin."""
        return int(self.origin.rsplit("/", 1)[1])

    @property
    def keys_dir(self) -> Path:
        """Folder of the private keys."""
        return self.data_dir / "keys"

    @property
    def roster_dir(self) -> Path:
        """Folder of the verified roster, also served to peers."""
        return self.data_dir / "roster"

    @property
    def pinned_root(self) -> Path:
        """File of the pinned root."""
        return self.data_dir / self.roster_root

    @property
    def database(self) -> str:
        """The database URL in force."""
        return self.database_url or f"sqlite:///{self.data_dir / 'verbale.db'}"


def load(path: Path | None = None, environment: Mapping[str, str] | None = None) -> Settings:
    """Read the settings.

    Args:
        path: the TOML file; by default what VERBALE_SETTINGS names, or none.
        environment: by default the process's.

    Raises:
        UnsafeSettings: unknown, missing, of the wrong type or contradictory; the message says what to change.
    """
    environment = os.environ if environment is None else environment
    if path is None and SETTINGS_VARIABLE in environment:
        path = Path(environment[SETTINGS_VARIABLE])
    values: dict[str, Any] = _from_file(path) if path is not None else {}
    base = path.resolve().parent if path is not None else Path.cwd()
    known = {f.name: f for f in fields(Settings)}
    for variable, text in environment.items():
        if not variable.startswith(PREFIX) or variable == SETTINGS_VARIABLE:
            continue
        name = variable.removeprefix(PREFIX).lower()
        if name not in known:
            raise UnsafeSettings(
                f"The environment variable {variable} is no setting of this version. See docs/operations.md."
            )
        values[name] = text
    unknown = sorted(values.keys() - known.keys())
    if unknown:
        raise UnsafeSettings(
            f"{path} has settings this version does not know: {', '.join(unknown)}. See docs/operations.md."
        )
    missing = sorted(n for n in ("state", "origin", "data_dir", "public_url") if not values.get(n))
    if missing:
        raise UnsafeSettings(
            f"Missing settings: {', '.join(missing)}. Run `verbale node init`, or set VERBALE_SETTINGS to its file."
        )
    converted: dict[str, Any] = {
        name: _convert(name, str(known[name].type), value) for name, value in values.items()
    }
    settings = Settings(**converted)
    data_dir = settings.data_dir if settings.data_dir.is_absolute() else base / settings.data_dir
    object.__setattr__(settings, "data_dir", data_dir.resolve())
    _check(settings)
    return settings


def _from_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UnsafeSettings(f"The settings file {path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UnsafeSettings(f"The settings file {path} is not TOML: {error}.") from error


def _convert(name: str, type_: str, value: object) -> object:
    """Values from TOML have their type; values from the environment are text."""
    try:
        if type_ == "Path":
            return Path(str(value))
        if type_ == "bool":
            if isinstance(value, bool):
                return value
            return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[
                str(value).lower()
            ]
        if type_ == "int":
            return int(str(value))
        if type_ == "float":
            return float(str(value))
        if type_ == "tuple[str, ...]":
            items = value if isinstance(value, list) else str(value).split(",")
            return tuple(str(item).strip() for item in items if str(item).strip())
        return str(value)
    except (KeyError, ValueError) as error:
        raise UnsafeSettings(f"The setting {name} cannot be {value!r}: it is a {type_}.") from error


def _check(settings: Settings) -> None:
    if settings.state not in STATES:
        raise UnsafeSettings(
            f"state is {settings.state!r}; it must be the alpha-2 code of a Subscribing State."
        )
    if not is_origin(settings.origin):
        raise UnsafeSettings(f"origin is {settings.origin!r}; it must look like ee.example/log/1.")
    url = urlsplit(settings.public_url)
    if url.scheme not in ("https", "http") or not url.netloc or settings.public_url.endswith("/"):
        raise UnsafeSettings("public_url must be an https URL without a trailing slash.")
    if url.path or url.query or url.fragment or url.username:
        raise UnsafeSettings(
            "public_url is a scheme, a host and perhaps a port, nothing more: peers sign for it as it is."
        )
    loopback = (url.hostname or "") in ("localhost", "127.0.0.1", "::1")
    if url.scheme == "http" and not loopback and not settings.insecure_demo:
        raise UnsafeSettings("public_url is plain http on a name that is not this machine. Use https.")
    if not 0 < settings.listen_port < 65536:  # noqa: PLR2004 - TCP
        raise UnsafeSettings("listen_port must be between 1 and 65535.")
    for name in (
        "max_body_bytes",
        "max_batch_bytes",
        "max_batch_lines",
        "max_notice_bytes",
        "max_header_bytes",
    ):
        if getattr(settings, name) < 1:
            raise UnsafeSettings(f"{name} must be positive.")
    if settings.carry_mb < 0 or settings.carry_days < 1:
        raise UnsafeSettings("carry_mb must not be negative, and carry_days is at least 1.")
    if not MIN_LEASE_S <= settings.lease_s <= MAX_LEASE_S:
        raise UnsafeSettings(f"lease_s must be between {MIN_LEASE_S} and {MAX_LEASE_S}.")
    for network in settings.webhook_allow_networks:
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            raise UnsafeSettings(f"webhook_allow_networks: {error}.") from error
    if settings.screening_index not in ("memory", "disk"):
        raise UnsafeSettings("screening_index must be memory or disk.")
    if settings.screening_record not in ("none", "outcome", "full"):
        raise UnsafeSettings("screening_record must be none, outcome or full.")
    if settings.screening_record_days < 1:
        raise UnsafeSettings("screening_record_days must be positive.")
    parse_rules(settings.retention)
    if not 1 <= settings.event_retention_days <= MAX_RETENTION_DAYS:
        raise UnsafeSettings(f"event_retention_days must be between 1 and {MAX_RETENTION_DAYS}.")
    if len(settings.webhook_retry_s) > MAX_RETRIES or not all(
        wait.isascii() and wait.isdigit() and 1 <= int(wait) <= DAY_S for wait in settings.webhook_retry_s
    ):
        raise UnsafeSettings(
            f"webhook_retry_s is at most {MAX_RETRIES} numbers of seconds, each from 1 to {DAY_S}, like 5, 300, 1800."
        )
    if not 1 <= settings.webhook_log_days <= MAX_LOG_DAYS:
        raise UnsafeSettings(f"webhook_log_days must be between 1 and {MAX_LOG_DAYS}.")
    _check_mail(settings)
    if settings.log_level not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise UnsafeSettings("log_level must be DEBUG, INFO, WARNING or ERROR.")


def _check_mail(settings: Settings) -> None:
    if settings.mail_digests and not settings.mail_host:
        raise UnsafeSettings("mail_digests needs mail_host.")
    if settings.mail_host and "@" not in settings.mail_from:
        raise UnsafeSettings("mail_from must be an address, as in verbale@ee.example.")
    if settings.mail_security not in ("starttls", "tls", "none"):
        raise UnsafeSettings("mail_security must be starttls, tls or none.")
    if (
        settings.mail_host
        and settings.mail_security == "none"
        and settings.mail_host not in ("localhost", "127.0.0.1", "::1")
    ):
        raise UnsafeSettings("mail_security none sends mail in the clear: only to a server on this machine.")
    if not 0 < settings.mail_port < 65536:  # noqa: PLR2004 - TCP
        raise UnsafeSettings("mail_port must be between 1 and 65535.")


def to_toml(values: Mapping[str, object]) -> str:
    """Write settings as the TOML that `load` reads, with each setting's description above it."""
    docs = {f.name: f.metadata["doc"] for f in fields(Settings)}
    lines = []
    for name, value in values.items():
        lines += [f"# {docs[name]}", f"{name} = {_toml(value)}", ""]
    return "\n".join(lines)


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'
