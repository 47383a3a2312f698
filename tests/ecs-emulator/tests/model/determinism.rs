//! The same seed tells the same story.

use ecs_emulator::model::Protection;

use crate::lab::{Lab, knobs, percent};

fn story(seed: u64) -> String {
    let mut lab = Lab::new(knobs(), seed, 6, percent(50, 150));
    lab.until_completed();
    let held = lab.live(1)[..2].to_vec();
    lab.protect(&held, Protection::On(Some(10)));
    lab.deploy(2);
    lab.run(200);
    lab.scale(3);
    lab.run(2000);
    lab.story()
}

#[test]
fn a_seed_can_be_replayed_and_another_one_differs() {
    assert_eq!(story(1), story(1));
    assert_ne!(story(1), story(2));
}

#[test]
fn looking_changes_nothing() {
    let mut plain = Lab::new(knobs(), 5, 4, percent(100, 200));
    let mut watched = Lab::new(knobs(), 5, 4, percent(100, 200));
    for _ in 0..50 {
        plain.run(7);
        watched.run(3);
        let _ = watched.world.describe_services("default", &["workers"], watched.now);
        watched.run(4);
    }
    assert_eq!(plain.story(), watched.story());
}
