"""``refnet completion``: what completes commands, options and values in a shell, written from the parser itself."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

EPILOG = """\
examples:
  refnet completion bash > ~/.local/share/bash-completion/completions/refnet
  refnet completion zsh > refnet-completion.zsh      # and in ~/.zshrc, after compinit: source refnet-completion.zsh
  refnet completion fish > ~/.config/fish/completions/refnet.fish

It works in shells that are opened afterwards. Write it again after an update of refnet.
"""


class _Argument(NamedTuple):
    """An option, or with no flags a positional argument; ``words`` are the values that are known."""

    flags: Sequence[str]
    text: str
    takes_value: bool
    is_file: bool
    words: Sequence[str]


class _Command(NamedTuple):
    """A command, as the words after ``refnet`` that name it, its subcommands with their help, and its arguments."""

    path: tuple[str, ...]
    commands: dict[str, str]
    arguments: list[_Argument]

    def options(self) -> list[_Argument]:
        """Those with flags."""
        return [argument for argument in self.arguments if argument.flags]

    def words(self) -> list[str]:
        """What can stand where no option does."""
        return [*self.commands, *(word for each in self.arguments if not each.flags for word in each.words)]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("shell", metavar="SHELL", choices=tuple(_SHELLS), help=", ".join(_SHELLS))


def run(arguments: argparse.Namespace) -> int:
    """Write the script.

    Returns
    -------
    int
        0
    """
    print(_SHELLS[arguments.shell](list(_commands(arguments.of_all))), end="")
    return 0


def _commands(parser: argparse.ArgumentParser, path: tuple[str, ...] = ()) -> Iterator[_Command]:
    """The commands below a parser, itself first. argparse has no public way to ask for them."""
    own = _Command(path, {}, [])
    below: dict[str, Any] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            below |= action.choices
            own.commands.update({choice.dest: _text(parser, choice) for choice in action._choices_actions})
        else:
            words = [str(word) for word in getattr(action, "offered", None) or action.choices or ()]
            takes_value = action.nargs != 0
            is_file = getattr(action, "or_file", action.type is None and action.choices is None)
            own.arguments.append(_Argument(action.option_strings, _text(parser, action), takes_value, is_file, words))
    yield own
    for name, command in below.items():
        yield from _commands(command, (*path, name))


def _text(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    return parser._get_formatter()._expand_help(action) if action.help else ""


_BASH = """\
# Completes refnet's commands, options and values. Written by: refnet completion bash
_refnet() {
    local each i path="" before="" word="" head="" words=""
    for ((i = 1; i <= COMP_CWORD; i++)); do
        each=${COMP_WORDS[i]}
        if [[ $each == "=" || $word == *= ]]; then  # bash breaks a word at every =
            word=$word$each
            continue
        fi
        before=$word
        word=$each
        case "$path$before" in
@PATHS@) path="$path$before " ;;
        esac
    done
    if [[ $word == --*=* ]]; then
        before=${word%%=*}
        word=${word#*=}
        head=$before=
    fi
    case "$path$before" in
@VALUES@
        *)
            case "$path$word" in
@WORDS@
            esac
            ;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "$word"))
    if [[ ${COMP_WORDBREAKS-} != *=* ]]; then
        COMPREPLY=("${COMPREPLY[@]/#/$head}")
    elif [[ $word == *=* ]]; then
        COMPREPLY=("${COMPREPLY[@]#"${word%=*}="}")
    fi
    if [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *= ]]; then
        compopt -o nospace 2> /dev/null
    fi
}
complete -o default -F _refnet refnet
"""


def _bash(commands: Sequence[_Command]) -> str:
    values: dict[str, list[str]] = {}  # what is done: the options for whose values it is
    words = []
    for command in commands:
        start = "".join(f"{word} " for word in command.path)
        for option in command.options():
            if option.takes_value:
                no_files = "" if option.is_file else "; compopt +o default 2> /dev/null"
                act = f'words="{" ".join(option.words)}"{no_files}'
                values.setdefault(act, []).extend(f'"{start}{flag}"' for flag in option.flags)
        flags = [flag for option in command.options() for flag in option.flags]
        words.append(f'{" " * 16}"{start}"-*) words="{" ".join(flags)}" ;;')
        words.append(f'{" " * 16}"{start}"*) words="{" ".join(command.words())}" ;;')
    # The longest path first, since a shorter one is a beginning of it.
    words = [line for pair in reversed(list(zip(words[::2], words[1::2], strict=True))) for line in pair]
    paths = [f'"{" ".join(command.path)}"' for command in commands if command.path]
    return (
        _BASH.replace("@PATHS@", " " * 12 + "|".join(paths))
        .replace("@VALUES@", "\n".join(f"{' ' * 8}{'|'.join(names)}) {act} ;;" for act, names in values.items()))
        .replace("@WORDS@", "\n".join(words))
    )


def _zsh(commands: Sequence[_Command]) -> str:
    """As zsh runs what is written for bash."""
    return "autoload -U +X bashcompinit && bashcompinit\n" + _bash(commands)


def _fish(commands: Sequence[_Command]) -> str:
    lines = ["# Completes refnet's commands, options and values. Written by: refnet completion fish"]
    for command in commands:
        within = [f"__fish_seen_subcommand_from {word}" for word in command.path] or ["__fish_use_subcommand"]
        if command.path and command.commands:
            within.append(f"not __fish_seen_subcommand_from {' '.join(command.commands)}")
        start = f"complete -c refnet -n {_quoted('; and '.join(within))}"
        lines += [f"{start} -f -a {name} -d {_quoted(text)}" for name, text in command.commands.items()]
        for argument in command.arguments:
            parts = [f"-{'l' if flag.startswith('--') else 's'} {flag.lstrip('-')}" for flag in argument.flags]
            if argument.flags and argument.takes_value:
                parts.append("-r" if argument.is_file else "-x")
            if argument.words:
                parts.append(f"-a {_quoted(' '.join(argument.words))}")
            if parts:
                lines.append(f"{start} {' '.join(parts)} -d {_quoted(argument.text)}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """The text in fish's single quotes."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


_SHELLS: dict[str, Callable[[Sequence[_Command]], str]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}
