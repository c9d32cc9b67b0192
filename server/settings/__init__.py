"""The settings of a server: what there is (`fields`), and who said what (`sources`)."""

from server.settings.fields import PREFIX, Settings, SettingsError
from server.settings.sources import COMMAND_LINE, CONFIG_FILE, DEFAULT, Origins, read_settings

__all__ = [
    "COMMAND_LINE",
    "CONFIG_FILE",
    "DEFAULT",
    "PREFIX",
    "Origins",
    "Settings",
    "SettingsError",
    "read_settings",
]
