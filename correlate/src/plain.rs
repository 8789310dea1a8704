//! The ceiling: the same join of the same messages by the same table, on one thread, with no runtime, no supervision and
//! nothing handed over.

use std::collections::VecDeque;

use crate::{
    error::Error,
    job::{Job, Sheet},
};

/// Joins it all, so many partitions abreast, and calls `write` with each page.
pub(crate) fn join<J: Job>(
    job: &J,
    partitions: Vec<J::Partition>,
    abreast: usize,
    tables: &mut [J::Table],
    mut write: impl FnMut(Sheet<J::Page>) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut later = partitions.into_iter();
    let mut now: VecDeque<J::Partition> = later.by_ref().take(abreast.max(1)).collect();
    while let Some(mut partition) = now.pop_front() {
        let mut blocks = 0..job.blocks(&mut partition);
        loop {
            if !job.fill(&mut partition)? {
                now.extend(later.next());
                break;
            }
            if blocks.next().is_none() {
                now.push_back(partition);
                break;
            }
            let routed = job.route(&partition, false)?;
            job.pass(&mut partition);
            for batch in routed.batches {
                job.merge(&mut tables[job.shard(&batch)], &batch, &mut 0, job.len(&batch));
            }
            routed.sheets.into_iter().try_for_each(&mut write)?;
            for table in &mut *tables {
                job.pages(table, false).into_iter().try_for_each(&mut write)?;
            }
        }
    }
    tables.iter_mut().flat_map(|table| job.pages(table, true)).try_for_each(write)
}
