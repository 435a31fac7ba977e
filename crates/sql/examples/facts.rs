//! Prints the facts of the statements that are its arguments, as the corpus in `tests/corpus` has them. With `--escapes`,
//! `--either` or `--other` before it, a statement is read under other settings; with `--hex`, it is hexadecimal.
#![allow(clippy::print_stdout)]

use sql::{Encoding, Settings, Strings, analyze};

fn main() {
    let plain = Settings { strings: Strings::Standard, encoding: Encoding::AsciiSafe };
    let (mut settings, mut hex) = (plain, false);
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--escapes" => settings.strings = Strings::Escapes,
            "--either" => settings.strings = Strings::Either,
            "--other" => settings.encoding = Encoding::Other,
            "--hex" => hex = true,
            text => {
                print(&if hex { bytes(text) } else { text.as_bytes().to_vec() }, settings);
                (settings, hex) = (plain, false);
            }
        }
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<char> = hex.chars().collect();
    digits.chunks(2).filter_map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).ok()).collect()
}

fn print(text: &[u8], settings: Settings) {
    let facts = analyze(text, settings);
    let relation = |relation: &model::Relation| {
        let schema = relation.schema.as_ref().map_or(String::new(), |schema| format!("{schema}."));
        let access: Vec<&str> = relation.access.iter().map(|access| access.as_str()).collect();
        format!("{schema}{}: {}", relation.name, access.join(" "))
    };
    println!("operations = {:?}", facts.operations.iter().map(|operation| operation.as_str()).collect::<Vec<_>>());
    println!("effects = {:?}", facts.effects.iter().map(|effect| effect.as_str()).collect::<Vec<_>>());
    println!("relations = {:?}", facts.relations.iter().map(relation).collect::<Vec<_>>());
    println!("functions = {:?}", facts.functions);
    println!("bounded = {:?}", facts.bounded);
    println!("opaque = {:?}", facts.opaque.iter().map(|reason| reason.as_str()).collect::<Vec<_>>());
}
