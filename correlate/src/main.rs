//! scaffold
mod desk; mod error; mod job; mod kills; mod memory; mod plain; mod random; mod table; mod topology; mod vitals;
use std::sync::Arc; use std::time::Instant;
use job::*;
fn main() {
    let t = Instant::now();
    let batch: usize = std::env::args().nth(1).map_or(512, |s| s.parse().unwrap());
    let nk: u64 = std::env::args().nth(2).map_or(12, |s| s.parse().unwrap());
    let threads: usize = std::env::args().nth(3).map_or(2, |s| s.parse().unwrap());
    let ms = Arc::new(memory::messages(42, 1_000_000));
    println!("gen {:?}", t.elapsed());
    for _ in 0..5 {
    let job = Arc::new(memory::InMemory::new(12, batch));
    let mut table = job.table(); let mut out = job.output();
    let t = Instant::now();
    plain::join(&*job, job.partitions(&ms), &mut table, |s| job.write(&mut out, &s, Share::ALL)).unwrap();
    let plain = t.elapsed();
    let v1 = memory::check(&out, 42, 1_000_000); drop(out);
    let staff = topology::Staff { threads, readers: 2 };
    let (r, s, k, w) = job.turns(ms.len());
    let kills = kills::Kills::seeded(9, nk, &[r/3, r/3, s, s, s, k, w]);
    let o = topology::run(job.clone(), job.partitions(&ms), job.table(), job.output(), &staff, kills, Default::default()).unwrap();
    let v = memory::check(&o.output, 42, 1_000_000);
    println!("plain {plain:?} {} sup {:?} {} deaths {} ratio {:.2} {:?}", v1.is_exact(), o.took, v.is_exact(), o.deaths.len(), plain.as_secs_f64()/o.took.as_secs_f64(), job.gauge(&o.table));
    }
}
