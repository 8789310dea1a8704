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
    table: &mut J::Table,
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
            let routed = job.route(&partition)?;
            job.pass(&mut partition);
            for batch in routed.batches {
                job.merge(table, &batch, &mut 0, job.len(&batch));
            }
            for sheet in routed.sheets.into_iter().chain(job.pages(table, false)) {
                write(sheet)?;
            }
        }
    }
    job.pages(table, true).into_iter().try_for_each(write)
}
