//! Holds the workspace's own dependencies against the table in docs/architecture.md: arrows point
//! down only, and the page stays true.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

type Arrows = BTreeMap<String, BTreeSet<String>>;

#[test]
fn crates_use_what_the_architecture_allows() {
    let documented = documented();
    let real = real();
    let names = |arrows: &Arrows| arrows.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(names(&real), names(&documented), "the crates and the table in architecture.md");
    for (name, uses) in &real {
        let allowed = &documented[name];
        let beyond: Vec<_> = uses.difference(allowed).collect();
        assert!(beyond.is_empty(), "`{name}` uses {beyond:?}; architecture.md allows {allowed:?}");
    }
}

/// Rows such as ``| `store` | what it is | `model`, `ledger` |`` below the heading "Crates".
fn documented() -> Arrows {
    let path = root().join("docs/architecture.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (_, section) = page.split_once("\n## Crates\n").expect("a section named Crates");
    let section = section.split("\n## ").next().unwrap();
    let quoted = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<BTreeSet<_>>();
    let rows = section.lines().filter(|l| l.starts_with("| `"));
    let row = |line: &str| {
        let cells: Vec<&str> = line.split('|').collect();
        (quoted(cells[1]).pop_first().unwrap(), quoted(cells[3]))
    };
    rows.map(row).collect()
}

/// What Cargo says. Development dependencies do not ship, so they are no arrows.
fn real() -> Arrows {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--format-version", "1", "--no-deps", "--locked", "--offline"]);
    let output = cargo.current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let uses = |package: &Value| {
        let ours = |d: &&Value| d["path"].is_string() && d["kind"] != "dev";
        let dependencies = package["dependencies"].as_array().unwrap();
        dependencies.iter().filter(ours).map(|d| d["name"].as_str().unwrap().to_owned()).collect()
    };
    packages.iter().map(|p| (p["name"].as_str().unwrap().to_owned(), uses(p))).collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}
