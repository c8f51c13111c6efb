"""The kind `command` as the command line and the controller see it: its parameters and its one-line description."""

from __future__ import annotations

import shlex
from typing import ClassVar

from pydantic import Field, field_validator

from core.kind import Context, Kind, Params
from jobs import command


class CommandParams(Params):
    """argv: the program and its arguments, no shell. env: variables for it, beside those of the submit."""

    argv: list[str] = Field(min_length=1)
    env: dict[str, str] = Field(default_factory=dict)

    @field_validator("argv")
    @classmethod
    def _can_be_run(cls, value: list[str]) -> list[str]:
        if not value[0]:
            raise ValueError("the program's name is empty")
        if any("\0" in word for word in value):
            raise ValueError("an argument holds a NUL byte")
        return value

    @field_validator("env")
    @classmethod
    def _can_be_set(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            if not name or "=" in name or "\0" in name + text:
                raise ValueError(f"{name!r} cannot be the name of a variable")
            if name.startswith("LAB_"):
                raise ValueError(f"{name} is set by lab")
        return value


class Command(Kind):
    name: ClassVar[str] = "command"
    summary: ClassVar[str] = "any program, with its own interpreter, in a working folder of its own"
    Params: ClassVar[type[Params]] = CommandParams
    code: ClassVar[tuple[str, ...]] = ("jobs.command", "jobs.command_kind")
    user_code: ClassVar[bool] = True

    def describe(self, params: CommandParams) -> str:
        return shlex.join(params.argv)

    def run(self, ctx: Context) -> None:
        command.run(ctx)
