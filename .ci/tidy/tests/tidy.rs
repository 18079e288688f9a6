//! Every check over the real tree, one test each, so that a failure names the broken rule.
#![forbid(unsafe_code)]

use corelane_tidy::{all, outlived, tree::Tree};
use std::{collections::BTreeSet, path::Path, sync::OnceLock};

fn tree() -> &'static Tree {
    static TREE: OnceLock<Tree> = OnceLock::new();
    TREE.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        Tree::load(&root).expect("the tree this test was built from can be read")
    })
}

fn hold(name: &str) {
    let check = all().find(|c| c.name == name).expect("a check of this name is listed");
    let found: Vec<String> = (check.run)(tree()).iter().map(ToString::to_string).collect();
    assert!(found.is_empty(), "{}:\n{}", check.rule, found.join("\n"));
}

macro_rules! checks {
    ($($name:ident)*) => {
        $(#[test] fn $name() { hold(stringify!($name)); })*
        const RUN: &[&str] = &[$(stringify!($name)),*];
    };
}

checks! {
    wire_is_pure
    dependencies_run_one_way
    core_knows_no_protobuf
    protobuf_stays_at_the_edge
    lanes_neither_block_nor_lock
    lanes_share_only_listed_atomics
    clock_and_chance_come_from_io
    bounds_stand_in_limits
    binaries_hold_no_logic
    names_are_the_fields
    unsafe_lives_in_io_backends
    crate_roots_forbid_unsafe
    unsafe_says_why_it_is_sound
    files_say_what_they_own
    no_mod_rs
    files_stay_readable
    functions_stay_readable
    no_getters
    no_type_aliases
    nothing_is_unfinished
    tests_do_not_sleep
    exceptions_give_their_reason
    invariants_are_held
    rules_name_their_tests
    readme_commands_are_run
    code_map_is_complete
}

#[test]
fn every_check_runs_over_the_tree() {
    let listed: BTreeSet<&str> = all().map(|c| c.name).collect();
    assert_eq!(RUN.iter().copied().collect::<BTreeSet<_>>(), listed);
}

#[test]
fn the_documents_that_checks_read_are_there() {
    for path in
        ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", ".ci/run", "core/src/limits.rs"]
    {
        assert!(tree().file(path).is_some(), "{path} is missing, so checks that read it hold nothing");
    }
}

#[test]
fn no_exception_outlived_its_file() {
    let stale = outlived(tree());
    assert!(stale.is_empty(), "{}", stale.join("\n"));
}
