//! Texts that differ in nothing but which integers stand in them, so that facts of one can be those of all.
//!
//! Not a fingerprint: a shape is the bytes of the text itself, with a mark for each of its integers, and there is one only
//! where these bytes alone show that the server's scanner reads each of them as an integer, whichever it is. It says
//! nothing of what the integers do; that is for who analyses to find out ([`crate::Holds`]). The argument is in
//! docs/decisions/0021-facts-of-a-shape.md.
//!
//! The invariant: two texts of one shape are the same tokens for the server's scanner, but for the values of integers.

/// The longest shape, bytes. Its texts are short enough to be analysed, however long their integers are.
pub(crate) const SHAPE_BYTES_MAX: usize = 4096;
/// The most digits of an integer: however they are chosen, it is less than 2^31, so that it is one to the grammar, too.
const DIGITS_MAX: usize = 9;
/// Stands for an integer. No text that has a shape has this byte.
const MARK: u8 = b'#';

/// A text with marks in place of its integers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shape(Vec<u8>);

impl Shape {
    /// The shape of a text. `None` if it has no integers, or if it is not plain to see which they are.
    pub(crate) fn of(text: &[u8]) -> Option<Self> {
        let mut form = Vec::with_capacity(text.len().min(SHAPE_BYTES_MAX));
        let mut rest = text;
        let mut before = b' ';
        let mut integers = false;
        while let Some(&first) = rest.first() {
            let length = rest.iter().position(|byte| !is_word(*byte)).unwrap_or(rest.len());
            let (word, after) = rest.split_at(length.max(1));
            match word {
                [b'-'] if before == b'-' => return None,
                [byte] if is_mark_of_its_own(*byte) => form.push(*byte),
                word if first.is_ascii_digit() => {
                    // With a dot beside it, it is part of another number, or of what is none.
                    let alone = before != b'.' && after.first() != Some(&b'.');
                    if !alone || word.len() > DIGITS_MAX || !word.iter().all(u8::is_ascii_digit) {
                        return None;
                    }
                    form.push(MARK);
                    integers = true;
                }
                // A name or a keyword; digits within it are its own.
                word if is_word(first) => form.extend_from_slice(word),
                _ => return None,
            }
            if form.len() > SHAPE_BYTES_MAX {
                return None;
            }
            before = word.last().copied().unwrap_or(before);
            rest = after;
        }
        integers.then_some(Self(form))
    }

    /// What all texts of this shape have in common.
    pub(crate) fn form(&self) -> &[u8] {
        &self.0
    }

    /// The text of this shape in which each integer is this one.
    pub(crate) fn with(&self, integer: &str) -> String {
        String::from_utf8_lossy(&self.0).replace(char::from(MARK), integer)
    }
}

/// What names, keywords and numbers are made of. All else that a text with a shape may have ends them.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// What may stand between words. None of these can begin or end a comment, a string, a quoted name or a parameter, unless
/// it is the second minus in a row; and none becomes part of a number, unless it is a dot.
fn is_mark_of_its_own(byte: u8) -> bool {
    matches!(
        byte,
        b' ' | b'\t'
            | b'\n'
            | b'\r'
            | b','
            | b'.'
            | b';'
            | b':'
            | b'('
            | b')'
            | b'['
            | b']'
            | b'='
            | b'<'
            | b'>'
            | b'*'
            | b'+'
            | b'-'
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn form(text: &str) -> Option<String> {
        Shape::of(text.as_bytes()).map(|shape| String::from_utf8(shape.0).unwrap())
    }

    #[test]
    fn integers_are_marked_and_nothing_else() {
        for (text, shape) in [
            ("select 1", "select #"),
            ("select 007,-1,+2", "select #,-#,+#"),
            ("select a1, t_2.c3 from t_2 where a1=10", "select a1, t_2.c3 from t_2 where a1=#"),
            ("values(1),(999999999)", "values(#),(#)"),
            ("select x[1:2], 3::int8;\r\n\tselect 4", "select x[#:#], #::int8;\r\n\tselect #"),
            ("select 1- -1", "select #- -#"),
            ("select e1, _1, u1 < 5", "select e1, _1, u1 < #"),
        ] {
            assert_eq!(form(text).as_deref(), Some(shape), "{text}");
        }
    }

    #[test]
    fn where_it_is_not_plain_there_is_no_shape() {
        for text in [
            "",
            "select a1",
            // Other numbers.
            "select 1e5",
            "select 1E5",
            "select 1e",
            "select 1.5",
            "select 1.",
            "select .5",
            "select 1..2",
            "select a.1",
            "select 0x1F",
            "select 0b1",
            "select 0o7",
            "select 1_000",
            "select 1_",
            "select 1a",
            "select 1234567890",
            "select 2147483648",
            "select 0000000001",
            // Where digits may be something else.
            "select $1",
            "select $1, 2",
            "select a$1, 2",
            "select 1 -- 2",
            "select 1--2",
            "select 1---2",
            "select /* 1 */ 2",
            "select 4 / 2",
            "select '1', 2",
            "select e'1', 2",
            "select E'\\'1', 2",
            "select \"1\", 2",
            "select $$1$$, 2",
            "select $a$1$a$, 2",
            "select U&\"1\", 2",
            "select x'1', 2",
            "select 1 \\gset",
            "select é, 1",
            "select 1\0",
            "select 1\u{b}, 2",
            "select 1\u{a0}, 2",
            // Operators that nobody writes with integers beside them in a hurry.
            "select #1",
            "select 1 # 2",
            "select @1",
            "select 1 ? 2",
            "select 1 % 2",
            "select 1 | 2",
            "select !1",
            "select ~1",
            "select 2 ^ 3",
            "select 1 & 2",
            "select `1`",
            "select {1}",
        ] {
            assert_eq!(form(text), None, "{text}");
        }
        let long = |blanks: usize| [&b"select "[..], &vec![b' '; blanks], b"100"].concat();
        assert!(Shape::of(&long(SHAPE_BYTES_MAX - 8)).is_some());
        assert!(Shape::of(&long(SHAPE_BYTES_MAX - 7)).is_none());
    }

    #[test]
    fn the_longest_is_still_analysed() {
        // A separator at least between two integers.
        const { assert!(SHAPE_BYTES_MAX / 2 * (DIGITS_MAX + 1) < crate::TEXT_BYTES_MAX) }
    }

    #[test]
    fn integers_can_be_others() {
        let shape = Shape::of(b"select a1 where b = 10 and c < -2").unwrap();
        assert_eq!(shape.with("999"), "select a1 where b = 999 and c < -999");
        assert_eq!(Shape::of(shape.with("0").as_bytes()), Some(shape));
    }
}
