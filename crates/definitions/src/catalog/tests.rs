//! Whole directories, right and wrong.

use std::fs;

use super::*;

const PAYMENTS: &str = "name = \"payments\"\nkey = \"customer_id\"\nevent_time = \"paid_at\"\n\
    columns = [{ name = \"customer_id\", type = \"string\" }, { name = \"paid_at\", type = \
    \"timestamp\" }, { name = \"amount\", type = \"int64\" }]";

fn view(name: &str, from: &str) -> SourceFile {
    let text = format!("CREATE VIEW {name} AS SELECT customer_id, n FROM {from}\n");
    SourceFile::new(format!("dataflows/{name}.sql"), text)
}

fn counts(name: &str) -> SourceFile {
    let text = format!(
        "CREATE VIEW {name} AS\nSELECT customer_id, count(*) AS n FROM payments GROUP BY customer_id\n"
    );
    SourceFile::new(format!("dataflows/{name}.sql"), text)
}

fn payments() -> SourceFile {
    SourceFile::new("topics/payments.toml", PAYMENTS)
}

fn messages(result: Result<Catalog, Diagnostics>) -> Vec<String> {
    let found = result.unwrap_err();
    found
        .iter()
        .map(|d| format!("{}:{}:{} {} {}", d.file.display(), d.line, d.column, d.code, d.message))
        .collect()
}

const SYSTEM: [&str; 7] = [
    "falaj.baselines",
    "falaj.definitions",
    "falaj.drift",
    "falaj.epochs",
    "falaj.models",
    "falaj.runs",
    "falaj.serving",
];

#[test]
fn topics_bring_their_rejected_topics_and_the_system_is_there() {
    let catalog = Catalog::from_sources(&[payments()], &[]).unwrap();
    let names: Vec<&str> = catalog.topics.names().collect();
    let mut expected = SYSTEM.to_vec();
    expected.extend(["payments", "payments.rejected"]);
    assert_eq!(names, expected);
    assert_eq!(catalog.topics.rejected("payments").unwrap().schema.name, "payments.rejected");
    assert!(catalog.topics.rejected("falaj.epochs").is_none());
    assert_eq!(catalog.topics.schemas().count(), catalog.topics.len());
    let defined: Vec<&str> = catalog.definitions.iter().map(|d| d.name.as_str()).collect();
    let mut expected = SYSTEM.to_vec();
    expected.push("payments");
    assert_eq!(defined, expected);
    let payments = &catalog.definitions[SYSTEM.len()];
    assert_eq!((payments.version, &*payments.text), (Some(1), PAYMENTS));
}

#[test]
fn views_are_planned_after_what_they_read() {
    let files = [view("a", "b"), view("b", "c"), counts("c")];
    let catalog = Catalog::from_sources(&[payments()], &files).unwrap();
    let names: Vec<&str> = catalog.views.iter().map(|view| view.name.as_str()).collect();
    assert_eq!(names, ["c", "b", "a"]);
    assert_eq!(catalog.view("b").unwrap().name, "b");
    assert!(catalog.view("z").is_none());
    let defined: Vec<_> =
        catalog.definitions.iter().filter(|d| d.kind == DefinitionKind::View).collect();
    assert_eq!(defined.len(), 3);
    assert_eq!((defined[2].name.as_str(), defined[2].hash), ("c", catalog.views[0].hash));
}

#[test]
fn the_hash_names_all_that_decides_contents() {
    let hash = |topic: &str, views: &[SourceFile]| {
        Catalog::from_sources(&[SourceFile::new("t.toml", topic)], views).unwrap().hash
    };
    let base = hash(PAYMENTS, &[counts("c")]);
    assert_eq!(base, hash(PAYMENTS, &[counts("c")]));
    assert_ne!(base, hash(PAYMENTS, &[]));
    assert_ne!(base, hash(PAYMENTS, &[counts("d")]));
    assert_ne!(base, hash(&PAYMENTS.replace("int64", "int32"), &[counts("c")]));
}

#[test]
fn cycles_are_named_once() {
    let files = [view("a", "b"), view("b", "c"), view("c", "b"), view("z", "a"), view("s", "s")];
    let found = messages(Catalog::from_sources(&[payments()], &files));
    assert_eq!(
        found,
        [
            "dataflows/b.sql:1:45 cycle views read each other: b → c → b",
            "dataflows/s.sql:1:45 cycle view `s` reads itself",
        ]
    );
}

#[test]
fn findings_of_all_files_come_together() {
    let broken = SourceFile::new("topics/broken.toml", "name = 3\n");
    let again = SourceFile::new("topics/again.toml", format!("# again\n{PAYMENTS}"));
    let named = counts("payments");
    let wrong = view("w", "nowhere");
    let after = view("x", "w");
    let unparsed = SourceFile::new("dataflows/u.sql", "CREATE VEIW u AS SELECT 1");
    let found = messages(Catalog::from_sources(
        &[payments(), broken, again],
        &[named, wrong, after, unparsed],
    ));
    let has = |start: &str| found.iter().filter(|finding| finding.starts_with(start)).count();
    assert_eq!(has("topics/again.toml:2:1 duplicate-name"), 1, "{found:#?}");
    assert_eq!(has("dataflows/payments.sql:1:13 duplicate-name"), 1, "{found:#?}");
    assert!(
        has("topics/broken.toml:1:8 wrong-type") == 1 && has("topics/broken.toml") > 2,
        "{found:#?}"
    );
    assert!(has("dataflows/w.sql:1:") >= 1 && has("dataflows/u.sql:1:") >= 1, "{found:#?}");
    assert_eq!(has("dataflows/x.sql"), 0, "what reads a wrong view is not reported: {found:#?}");
}

#[test]
fn directories_are_read_whole() {
    let directory = std::env::temp_dir().join(format!("falaj-catalog-{}", std::process::id()));
    let put = |path: &str, text: &[u8]| {
        let path = directory.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    put("topics/deep/er/payments.toml", PAYMENTS.as_bytes());
    put("topics/README.md", b"not a definition");
    put("topics/.hidden.toml", b"not = [read");
    put("topics/system/epochs.toml", include_bytes!("../../../../topics/system/epochs.toml"));
    put("dataflows/c.sql", counts("c").text().as_bytes());
    let catalog = Catalog::load(&directory).unwrap();
    assert!(catalog.topics.get("payments").is_some() && catalog.view("c").is_some());
    assert!(catalog.findings.is_empty());

    put("topics/latin.toml", b"name = \"caf\xe9\"");
    put("topics/system/epochs.toml", b"name = \"falaj.epochs\"");
    let found = messages(Catalog::load(&directory));
    assert!(found.iter().any(|f| f.contains("latin.toml:1:12 not-utf8")), "{found:#?}");
    assert!(found.iter().any(|f| f.contains("epochs.toml:1:8 reserved-name")), "{found:#?}");

    fs::remove_dir_all(&directory).unwrap();
    let found = messages(Catalog::load(&directory));
    assert!(found.len() == 1 && found[0].contains("no-definitions"), "{found:?}");
}

/// What the repository ships is right.
#[test]
fn the_definitions_in_the_repository_load() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let catalog = Catalog::load(&root).unwrap_or_else(|findings| panic!("{findings}"));
    for name in ["payments", "customers", "merchants"] {
        let topic = catalog.topics.get(name).unwrap();
        assert!(!topic.description.is_empty() && topic.owner.is_some(), "{name}");
        assert!(topic.column_descriptions.iter().all(|text| !text.is_empty()), "{name}");
    }
}
