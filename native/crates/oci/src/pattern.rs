//! Patterns of ids: the part of regular expressions that ids need (`.`, `[...]`, `*`, `+`, `?`, `^`, `$`, `\`), matched in linear time.

/// A pattern ready to match.
#[derive(Debug)]
pub struct Pattern {
    atoms: Vec<Atom>,
    from_start: bool,
    to_end: bool,
}

#[derive(Debug)]
struct Atom {
    class: Class,
    /// May be absent.
    optional: bool,
    /// May come again.
    repeated: bool,
}

#[derive(Debug)]
enum Class {
    Any,
    One(char),
    Set(Vec<(char, char)>, bool),
}

impl Class {
    fn takes(&self, letter: char) -> bool {
        match self {
            Self::Any => true,
            Self::One(own) => *own == letter,
            Self::Set(ranges, negated) => {
                ranges
                    .iter()
                    .any(|(from, to)| (*from..=*to).contains(&letter))
                    != *negated
            }
        }
    }
}

impl Pattern {
    /// Reads a pattern; the error names it and what is wrong with it.
    pub fn new(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("invalid pattern {text:?}: {why}");
        let mut letters = text.chars().peekable();
        let from_start = letters.next_if_eq(&'^').is_some();
        let (mut atoms, mut to_end) = (Vec::<Atom>::new(), false);
        while let Some(letter) = letters.next() {
            let class = match letter {
                '$' if letters.peek().is_none() => {
                    to_end = true;
                    break;
                }
                '*' | '+' | '?' => {
                    let last = atoms
                        .last_mut()
                        .ok_or_else(|| wrong("it begins with a repetition"))?;
                    last.optional |= letter != '+';
                    last.repeated |= letter != '?';
                    continue;
                }
                '(' | ')' | '{' | '}' | '|' => {
                    return Err(wrong("groups, counts and | are not supported"));
                }
                '.' => Class::Any,
                '\\' => Class::One(
                    letters
                        .next()
                        .ok_or_else(|| wrong("it ends with a backslash"))?,
                ),
                '[' => set(&mut letters).ok_or_else(|| wrong("a [ is not closed"))?,
                other => Class::One(other),
            };
            atoms.push(Atom {
                class,
                optional: false,
                repeated: false,
            });
        }
        Ok(Self {
            atoms,
            from_start,
            to_end,
        })
    }

    /// Whether the pattern is found in `text`.
    pub fn matches(&self, text: &str) -> bool {
        let end = self.atoms.len();
        let mut at = vec![false; end + 1];
        let mut first = true;
        let mut letters = text.chars();
        loop {
            at[0] |= first || !self.from_start;
            first = false;
            for (index, atom) in self.atoms.iter().enumerate() {
                at[index + 1] |= at[index] && atom.optional;
            }
            if at[end] && !self.to_end {
                return true;
            }
            let Some(letter) = letters.next() else {
                return at[end];
            };
            let mut next = vec![false; end + 1];
            for (index, atom) in self.atoms.iter().enumerate() {
                if at[index] && atom.class.takes(letter) {
                    next[index + 1] = true;
                    // An atom that may come again is entered again, now satisfied.
                    next[index] |= atom.repeated;
                }
            }
            at = next;
        }
    }
}

fn set(letters: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<Class> {
    let negated = letters.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        let from = letters.next()?;
        if from == ']' && !ranges.is_empty() {
            return Some(Class::Set(ranges, negated));
        }
        let mut ahead = letters.clone();
        let ranged = ahead.next() == Some('-') && ahead.next().is_some_and(|to| to != ']');
        let to = if ranged {
            letters.next()?;
            letters.next()?
        } else {
            from
        };
        ranges.push((from, to));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_as_regular_expressions_do() {
        for (pattern, text, want) in [
            ("test-*", "test-abc", true),
            ("test-*", "my-test", true),
            ("test-+", "test", false),
            ("^a.c$", "abc", true),
            ("^a.c$", "xabc", false),
            ("^a.c$", "abcd", false),
            ("[0-9]+$", "web12", true),
            ("[^0-9]$", "web12", false),
            ("^ab?c", "ac1", true),
            ("^ab*c$", "abbbbc", true),
            ("^a[b-]c$", "a-c", true),
            ("a\\.b", "a.b", true),
            ("a\\.b", "axb", false),
            ("", "anything", true),
            ("^$", "x", false),
        ] {
            let read = Pattern::new(pattern).expect(pattern);
            assert_eq!(read.matches(text), want, "{pattern} on {text}");
        }
        for bad in ["*a", "a(b)", "[a", "a\\", "a|b"] {
            assert!(Pattern::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn matching_takes_no_exponential_time() {
        let read = Pattern::new(&format!("^{}b$", "a*".repeat(60))).expect("pattern");
        assert!(!read.matches(&"a".repeat(1000)));
    }
}
