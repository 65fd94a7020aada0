"""python -m minivit grade: marks a homework module offline. hwNN.toml says what is asked, hwNN.py what is right."""
from minivit.course.grader.grade import grade, grade_all, grade_text, show, variant

__all__ = ["grade", "grade_all", "grade_text", "show", "variant"]
