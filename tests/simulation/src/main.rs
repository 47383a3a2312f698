//! `simulate`: runs many seeds, or replays one.

fn main() {
    let seed: u64 = std::env::args().nth(1).and_then(|s| s.parse().ok()).unwrap_or(1);
    let n: u64 = std::env::args().nth(2).and_then(|s| s.parse().ok()).unwrap_or(1);
    let telling = n == 1;
    for seed in seed..seed + n {
        let out = simulation::run(&simulation::Options { seed, telling, ..Default::default() });
        for l in &out.story { println!("{l}"); }
        if let Some(b) = out.broken { println!("seed {seed}: {b:?}"); }
    }
}
