//! What a memory in a file promises.

use rstest::rstest;
use tempfile::TempDir;
use worker_drain_plan::memory::{HeldAgain, NodeMemory, ReadBack, TakenUp, TaskMemory};

use super::*;

fn drain() -> DrainId {
    DrainId {
        namespace: "media".into(),
        name: "transcoder".into(),
        cluster: "media".into(),
        service: "transcoder".into(),
        region: "eu-west-1".into(),
    }
}

fn memory(nodes: &[&str]) -> Memory {
    let nodes = nodes.iter().map(|node| ((*node).into(), NodeMemory::default())).collect();
    let task = TaskMemory { nodes, ..TaskMemory::default() };
    Memory { tasks: [("arn:aws:ecs:eu-west-1:1:task/media/0af3".into(), task)].into(), ..Memory::default() }
}

fn place() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state/drain.json");
    (folder, path)
}

fn save(record: &FileRecord, memory: Memory) -> Result<(), Failure> {
    record.0.save(memory)
}

#[test]
fn what_is_saved_is_loaded_by_the_next_process() {
    let (_folder, path) = place();
    let first = FileRecord::open(&path, drain()).unwrap();
    assert_eq!(first.0.load().unwrap(), Memory::default(), "nothing was ever remembered");
    save(&first, memory(&["a@1", "b@1"])).unwrap();
    assert_eq!(first.0.load().unwrap(), memory(&["a@1", "b@1"]));
    drop(first);
    let second = FileRecord::open(&path, drain()).unwrap();
    assert_eq!(second.0.load().unwrap(), memory(&["a@1", "b@1"]));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, FILE_MODE);
    assert!(!with_suffix(&path, ".tmp").exists());
}

#[test]
fn what_others_did_is_loaded_too_and_costs_nothing_where_nobody_did() {
    let (_folder, path) = place();
    let record = FileRecord::open(&path, drain()).unwrap();
    let at = jiff::Timestamp::UNIX_EPOCH;
    let mut told = memory(&["a@1"]);
    let task = told.tasks.values_mut().next().unwrap();
    task.held_again = Some(HeldAgain { times: 2, since: Some(at), let_go: Some(at), let_go_times: 1 });
    let node = task.nodes.values_mut().next().unwrap();
    node.read_back = Some(ReadBack { since: at, again: true });
    (node.given_back, node.taken_up) = (Some(at), Some(TakenUp { times: 3, at, queues: ["video".into()].into() }));
    save(&record, told.clone()).unwrap();
    assert_eq!(record.0.load().unwrap(), told);
    save(&record, memory(&["a@1"])).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    for field in ["held_again", "read_back", "given_back", "taken_up"] {
        assert!(!text.contains(field), "a memory from before that has no {field}, and is read: {text}");
    }
    assert_eq!(record.0.load().unwrap(), memory(&["a@1"]));
}

#[tokio::test]
async fn it_is_a_record() {
    let (_folder, path) = place();
    let record = FileRecord::open(&path, drain()).unwrap();
    assert_eq!(record.load().await.unwrap(), Memory::default());
    assert_eq!(record.path(), path);
}

#[test]
fn nothing_is_written_when_nothing_changed() {
    let (_folder, path) = place();
    let record = FileRecord::open(&path, drain()).unwrap();
    save(&record, Memory::default()).unwrap();
    assert!(!path.exists(), "an empty memory makes no file");
    save(&record, memory(&["a@1"])).unwrap();
    let inode = || std::os::unix::fs::MetadataExt::ino(&fs::metadata(&path).unwrap());
    let before = inode();
    save(&record, memory(&["a@1"])).unwrap();
    assert_eq!(inode(), before, "it was written again");
    save(&record, Memory::default()).unwrap();
    assert_eq!(record.0.load().unwrap(), Memory::default(), "what was forgotten is forgotten on disk");
}

#[test]
fn a_process_that_died_in_the_middle_leaves_the_old_memory() {
    let (_folder, path) = place();
    save(&FileRecord::open(&path, drain()).unwrap(), memory(&["old@1"])).unwrap();
    let leftover = with_suffix(&path, ".tmp");
    fs::write(&leftover, r#"{"version":1,"drain":{"na"#).unwrap();
    let record = FileRecord::open(&path, drain()).unwrap();
    assert_eq!(record.0.load().unwrap(), memory(&["old@1"]));
    save(&record, memory(&["new@1"])).unwrap();
    assert!(!leftover.exists());
    assert_eq!(record.0.load().unwrap(), memory(&["new@1"]));
}

#[rstest]
#[case::empty("")]
#[case::torn(r#"{"version":1,"drain":{"namespace":"media","#)]
#[case::something_else("[1, 2, 3]")]
#[case::no_version(r#"{"memory":{}}"#)]
#[case::no_memory(
    r#"{"version":1,"drain":{"namespace":"media","name":"transcoder","cluster":"media","service":"transcoder","region":"eu-west-1"}}"#
)]
fn a_damaged_file_is_never_an_empty_memory(#[case] text: &str) {
    let (_folder, path) = place();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    for failure in [
        FileRecord::open(&path, drain()).map(drop).unwrap_err(),
        FileRecord::peek(&path, &drain()).map(drop).unwrap_err(),
    ] {
        assert_eq!(failure.kind, FailureKind::Invalid);
        assert!(failure.message.contains("drain.json") && failure.message.contains("Restore it"), "{failure:?}");
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), text, "it was left as it was");
}

#[test]
fn a_newer_version_is_refused_though_its_shape_is_unknown() {
    let (_folder, path) = place();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, r#"{"version":2,"drains":[]}"#).unwrap();
    let failure = FileRecord::open(&path, drain()).unwrap_err();
    assert!(failure.message.contains("newer worker-drain (version 2"), "{failure:?}");
}

#[test]
fn the_memory_of_another_drain_is_refused() {
    let (_folder, path) = place();
    save(&FileRecord::open(&path, drain()).unwrap(), memory(&["a@1"])).unwrap();
    let other = DrainId { service: "thumbnailer".into(), ..drain() };
    let failure = FileRecord::open(&path, other).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Invalid);
    for part in ["media/transcoder in eu-west-1", "media/thumbnailer", "--state"] {
        assert!(failure.message.contains(part), "{failure:?}");
    }
}

#[test]
fn a_second_user_of_the_same_file_is_refused_until_the_first_is_gone() {
    let (_folder, path) = place();
    let first = FileRecord::open(&path, drain()).unwrap();
    save(&first, memory(&["a@1"])).unwrap();
    let failure = FileRecord::open(&path, drain()).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Invalid);
    assert!(failure.message.contains("another process uses the state file"), "{failure:?}");
    assert_eq!(FileRecord::peek(&path, &drain()).unwrap().memory, memory(&["a@1"]), "looking is allowed");
    drop(first);
    FileRecord::open(&path, drain()).unwrap();
}

#[test]
fn the_fleet_that_was_seen_first_is_remembered_with_the_next_memory() {
    const ARN: &str = "arn:aws:ecs:eu-west-1:123456789012:service/media/transcoder";
    let (_folder, path) = place();
    let record = FileRecord::open(&path, drain()).unwrap();
    save(&record, memory(&["a@1"])).unwrap();
    assert_eq!((record.fleet().get(), FileRecord::peek(&path, &drain()).unwrap().fleet), (None, None));
    record.fleet().learn(ARN);
    save(&record, memory(&["a@1"])).unwrap();
    drop(record);
    let record = FileRecord::open(&path, drain()).unwrap();
    record.fleet().learn("arn:aws:ecs:us-east-1:123456789012:service/media/transcoder");
    assert_eq!(record.fleet().get(), Some(ARN), "the first one stays");
    assert_eq!(record.0.load().unwrap(), memory(&["a@1"]));
}

#[test]
fn a_file_that_vanishes_under_us_is_an_error() {
    let (_folder, path) = place();
    let record = FileRecord::open(&path, drain()).unwrap();
    save(&record, memory(&["a@1"])).unwrap();
    fs::remove_file(&path).unwrap();
    assert!(record.0.load().unwrap_err().message.contains("was removed"), "an undo would be lost");
}

#[test]
fn a_folder_that_cannot_be_written_is_told_and_the_old_memory_stays() {
    let (_folder, path) = place();
    let record = FileRecord::open(&path, drain()).unwrap();
    save(&record, memory(&["old@1"])).unwrap();
    let folder = path.parent().unwrap();
    fs::set_permissions(folder, Permissions::from_mode(0o500)).unwrap();
    // Root writes where it likes.
    let may_write_anyway = File::create(folder.join("probe")).is_ok();
    let result = save(&record, memory(&["new@1"]));
    fs::set_permissions(folder, Permissions::from_mode(0o700)).unwrap();
    if may_write_anyway {
        return;
    }
    let failure = result.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Denied);
    assert!(failure.message.contains("drain.json"), "{failure:?}");
    assert_eq!(record.0.load().unwrap(), memory(&["old@1"]));
}

#[test]
fn a_write_that_fails_leaves_the_old_memory() {
    let (_folder, path) = place();
    let record = FileRecord::open(&path, drain()).unwrap();
    save(&record, memory(&["old@1"])).unwrap();
    fs::create_dir_all(with_suffix(&path, ".tmp/in the way")).unwrap();
    let failure = save(&record, memory(&["new@1"])).unwrap_err();
    assert!(failure.message.contains("cannot be written"), "{failure:?}");
    assert_eq!(record.0.load().unwrap(), memory(&["old@1"]));
    fs::remove_dir_all(with_suffix(&path, ".tmp")).unwrap();
    save(&record, memory(&["new@1"])).unwrap();
    assert_eq!(record.0.load().unwrap(), memory(&["new@1"]));
}

#[test]
fn a_folder_that_cannot_be_made_is_told() {
    let (folder, _path) = place();
    fs::write(folder.path().join("state"), "a file is in the way").unwrap();
    let failure = FileRecord::open(folder.path().join("state/drain.json"), drain()).unwrap_err();
    assert!(failure.message.contains("folder of the state file"), "{failure:?}");
}

#[test]
fn the_default_place_follows_xdg_and_keeps_drains_apart() {
    let (xdg, home) = (Path::new("/x"), Path::new("/h"));
    let path = drain().default_path(Some(xdg), Some(home)).unwrap();
    assert_eq!(path.parent().unwrap(), Path::new("/x/worker-drain"));
    let name = path.file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with("media-transcoder-") && path.extension() == Some("json".as_ref()), "{name}");
    assert_eq!(drain().default_path(Some(xdg), None), Some(path.clone()), "it is the same every time");
    let elsewhere = DrainId { region: "us-east-1".into(), ..drain() };
    assert_ne!(elsewhere.default_path(Some(xdg), None), Some(path));
    let fallback = drain().default_path(Some(Path::new("relative")), Some(home)).unwrap();
    assert!(fallback.starts_with("/h/.local/state/worker-drain"), "{fallback:?}");
    assert_eq!(drain().default_path(None, None), None);
    let hostile = DrainId { namespace: "../..".into(), name: "a/b".into(), ..drain() };
    assert_eq!(hostile.default_path(Some(xdg), None).unwrap().parent(), Some(Path::new("/x/worker-drain")));
}
