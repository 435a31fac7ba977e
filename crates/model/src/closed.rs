//! Closed sets of words: an enum, its text, and nothing in between.

/// Declares an enum whose variants each have one text, used in the record and on the command line.
macro_rules! closed {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$variant_meta])* $variant,)+ }

        impl $name {
            /// Every member of the set.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The text of this member, as the record has it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// The member with this text, if there is one.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                Self::parse_bytes(text.as_bytes())
            }

            /// As `parse`, for bytes that need not be text.
            #[must_use]
            #[inline(always)]
            pub(crate) fn parse_bytes(text: &[u8]) -> Option<Self> {
                match text { $(text if text == $text.as_bytes() => Some(Self::$variant),)+ _ => None }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

pub(crate) use closed;
