"""The commands by group. The module of a command is imported when it is used, and for the list of commands."""

import platform

from cyclopts import App, Group

from clipmem._version import __version__
from clipmem.base.declared import load, plugins
from clipmem.base.machine import installed

# group → commands; those of other packages are in the last one (entry points `clipmem.commands`)
GROUPS = {
    "Start": ("demo", "init", "run"),
    "Your data": ("curate", "inspect", "export"),
    "Models": ("score", "evaluate", "audit", "localize"),
    "Results": ("view", "compare"),
    "Research": ("validate-estimators", "doctor"),
}


def versions() -> str:
    """Return the versions that a bug report needs, in one line."""
    models = f"torch {installed('torch')}, open_clip {installed('open_clip_torch')}"
    return f"clipmem {__version__} ({models}, Python {platform.python_version()})"


def load_all() -> None:
    """Import the modules of all commands."""
    for point in plugins("commands").values():
        load(point)  # an error names the package
    _ = [app[name] for name in app]


panels = {group: Group.create_ordered(group) for group in GROUPS}
app = App(
    name="clipmem",
    group_commands=Group.create_ordered("Other"),
    help="Measure and show memorization in CLIP-style image-text models, and find mismatched captions.",
    help_epilogue="Exit codes: 0 done, 1 the run failed, 2 the input is wrong. Start with: clipmem demo --quick",
    version=versions,
    # main() handles errors and interrupts
    exit_on_error=True,
    suppress_keyboard_interrupt=False,
)
for group, commands in GROUPS.items():
    for name in commands:
        module = name.replace("-", "_")
        app.command(f"clipmem.cli.{module}:{module}", name=name, group=panels[group])
    if group == "Research":
        for name, point in sorted(plugins("commands").items()):
            app.command(point.value, name=name, group=panels[group])
app.register_install_completion_command(help="Install the shell completion of clipmem (bash, zsh or fish).")
