"""Each student's own variant and numbers: a function of id and salt, the same on every machine."""
import hashlib
import random
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Draw:
    """Draws by name, so that a new question changes no old one."""

    student: str
    salt: str
    homework: str

    def _number(self, name: str) -> int:
        words = "\n".join((self.salt.strip(), self.student.strip().lower(), self.homework, name))
        return int.from_bytes(hashlib.sha256(words.encode()).digest(), "big")

    def pick(self, name: str, options: list) -> Any:
        """One of the options."""
        return options[self._number(name) % len(options)]

    def numbers(self, name: str, shape: list[int], low: float, high: float, *, whole: bool = False) -> list:
        """Nested lists of numbers between low and high, multiples of 1/1024, which float32 holds exactly; or whole numbers below high."""
        rng = random.Random(self._number(name))  # of this generator only random() is promised to stay the same

        def one(sizes: list[int]) -> Any:
            if sizes:
                return [one(sizes[1:]) for _ in range(sizes[0])]
            x = low + (high - low) * rng.random()
            return int(x) if whole else max(round(x * 1024), 1 if low > 0 else -10**9) / 1024

        return one(shape)
