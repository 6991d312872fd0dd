//! A compute buffer while a graph is walked: the gaps in it (`ggml_dyn_tallocr` in `ggml-alloc.c`).
//!
//! Room is taken from the smallest gap that is large enough. A back-end may limit how large a piece of
//! memory is: then the buffer has several chunks, each as large as the highest end ever reached in it.

/// A place in a buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Spot {
    chunk: u8,
    offset: u64,
}

impl Spot {
    /// Mixes this place and its size into a number.
    pub(super) const fn mixed(self, number: u64, size: u64) -> u64 {
        mix(mix(mix(number, self.chunk as u64), self.offset), size)
    }

    /// Returns the place that lies bytes behind.
    pub(super) const fn after(self, bytes: u64) -> Spot {
        Spot { offset: self.offset.saturating_add(bytes), ..self }
    }
}

/// A buffer, in chunks.
#[derive(Debug)]
pub(super) struct Buffer {
    /// A power of two.
    alignment: u64,
    /// The bytes of a chunk, as far as what lies in it allows.
    most: u64,
    chunks: Vec<Chunk>,
}

/// A chunk: the gaps in it by address, of which the last reaches to its end, and the highest end.
#[derive(Debug)]
struct Chunk {
    gaps: Vec<Gap>,
    peak: u64,
}

#[derive(Clone, Copy, Debug)]
struct Gap {
    offset: u64,
    size: u64,
}

/// Larger than any buffer.
pub(super) const ENDLESS: u64 = u64::MAX / 2;

/// The chunks of a buffer; the last takes whatever is left (`GGML_VBUFFER_MAX_CHUNKS`).
const MOST_CHUNKS: u8 = 16;

impl Buffer {
    /// Returns an empty buffer whose chunks have no more than so many bytes.
    pub(super) fn new(alignment: u64, most: u64) -> Buffer {
        Buffer { alignment, most, chunks: Vec::with_capacity(1) }
    }

    /// Returns the bytes that the buffer needs.
    pub(super) fn peak(&self) -> u64 {
        self.chunks.iter().fold(0, |sum, chunk| sum.saturating_add(chunk.peak))
    }

    /// Mixes where the gaps are into a number.
    pub(super) fn mixed(&self, number: u64) -> u64 {
        let gaps = self.chunks.iter().flat_map(|chunk| &chunk.gaps);
        gaps.fold(number, |mixed, gap| mix(mix(mixed, gap.offset), gap.size))
    }

    /// Returns bytes rounded up to the alignment.
    pub(super) fn padded(&self, size: u64) -> u64 {
        let below = self.alignment.saturating_sub(1);
        (size.saturating_add(below) & !below).min(ENDLESS / 2)
    }

    /// Takes room (`ggml_dyn_tallocr_alloc`).
    pub(super) fn take(&mut self, size: u64) -> Spot {
        let (index, gap) = self.fitting(size).or_else(|| self.growing(size)).unwrap_or_else(|| self.added(size));
        let chunk = &mut self.chunks[usize::from(index)];
        let from = &mut chunk.gaps[gap];
        let offset = from.offset;
        *from = Gap { offset: offset.saturating_add(size), size: from.size.saturating_sub(size) };
        if from.size == 0 {
            chunk.gaps.remove(gap);
        }
        chunk.peak = chunk.peak.max(offset.saturating_add(size));
        Spot { chunk: index, offset }
    }

    /// Returns the smallest gap between two others that fits, the later of two alike; a later chunk's
    /// before an earlier's.
    fn fitting(&self, size: u64) -> Option<(u8, usize)> {
        let mut best = None;
        for (index, chunk) in (0..).zip(&self.chunks) {
            let mut least = u64::MAX;
            let (_, inner) = chunk.gaps.split_last().unzip();
            for (gap, found) in inner.unwrap_or(&[]).iter().enumerate() {
                if found.size >= size && found.size <= least {
                    (best, least) = (Some((index, gap)), found.size);
                }
            }
        }
        best
    }

    /// Returns the gap at the end of a chunk that has to grow least, or leaves least of what it has.
    fn growing(&self, size: u64) -> Option<(u8, usize)> {
        if let [chunk] = self.chunks.as_slice() {
            let (last, inner) = chunk.gaps.split_last()?;
            return (last.size >= size).then_some((0, inner.len()));
        }
        let mut best = None;
        let mut spare = i128::MIN;
        for (index, chunk) in (0..).zip(&self.chunks) {
            let Some((last, inner)) = chunk.gaps.split_last() else { continue };
            let left = i128::from(chunk.peak) - i128::from(last.offset) - i128::from(size);
            let better = if spare < 0 { left > spare } else { (0..spare).contains(&left) };
            if last.size >= size && better {
                (best, spare) = (Some((index, inner.len())), left);
            }
        }
        best
    }

    /// Adds a chunk and returns its only gap.
    fn added(&mut self, size: u64) -> (u8, usize) {
        // Only an absurd header fills even the last chunk: llama.cpp gives up there, and the bill
        // goes on at the end of its range.
        if let Some(last) = self.chunks.get_mut(usize::from(MOST_CHUNKS) - 1) {
            last.gaps.push(Gap { offset: last.peak, size: ENDLESS });
            return (MOST_CHUNKS - 1, last.gaps.len() - 1);
        }
        let index = u8::try_from(self.chunks.len()).unwrap_or(MOST_CHUNKS - 1);
        let size = if index + 1 < MOST_CHUNKS { self.most.max(size) } else { ENDLESS };
        let mut gaps = Vec::with_capacity(16);
        gaps.push(Gap { offset: 0, size });
        self.chunks.push(Chunk { gaps, peak: 0 });
        (index, 0)
    }

    /// Gives room back (`ggml_dyn_tallocr_free_bytes`): joins it with the first gap that it touches, and
    /// that one with a gap that it touches then.
    ///
    /// Room of no size is given back too, as ggml does: it may become a gap of its own, and stand
    /// between two others that would have joined.
    pub(super) fn give(&mut self, at: Spot, size: u64) {
        let Some(chunk) = self.chunks.get_mut(usize::from(at.chunk)) else { return };
        let (offset, end) = (at.offset, at.after(size).offset);
        for index in 0..chunk.gaps.len() {
            let gap = &mut chunk.gaps[index];
            if gap.end() == offset {
                gap.size = gap.size.saturating_add(size);
                chunk.join(index);
                return;
            }
            if gap.offset == end {
                *gap = Gap { offset, size: gap.size.saturating_add(size) };
                if let Some(before) = index.checked_sub(1) {
                    chunk.join(before);
                }
                return;
            }
        }
        // Gaps of no size may leave the list out of order, so it is not searched by halves.
        let at = chunk.gaps.iter().position(|gap| gap.offset >= offset).unwrap_or(chunk.gaps.len());
        chunk.gaps.insert(at, Gap { offset, size });
    }
}

impl Chunk {
    /// Joins a gap with the one behind it, if they touch.
    fn join(&mut self, index: usize) {
        let Some(&next) = self.gaps.get(index + 1) else { return };
        let gap = &mut self.gaps[index];
        if gap.end() == next.offset {
            gap.size = gap.size.saturating_add(next.size);
            self.gaps.remove(index + 1);
        }
    }
}

impl Gap {
    const fn end(&self) -> u64 {
        self.offset.saturating_add(self.size)
    }
}

/// Mixes a number into another, so that the same result means the same numbers in the same order.
pub(super) const fn mix(into: u64, number: u64) -> u64 {
    let mixed = (into.rotate_left(5) ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_gap_that_fits_is_taken_and_gaps_join() {
        let mut buffer = Buffer::new(32, ENDLESS);
        let at = |offset| Spot { chunk: 0, offset };
        let places: Vec<Spot> = [64, 32, 96, 32, 40].iter().map(|&size| buffer.take(buffer.padded(size))).collect();
        assert_eq!(places, [0, 64, 96, 192, 224].map(at));
        assert_eq!(buffer.peak(), 288, "sizes are rounded up to the alignment");
        buffer.give(at(0), 64);
        buffer.give(at(96), 96);
        assert_eq!(buffer.take(64), at(0), "the gap of 64 fits better than the one of 96");
        buffer.give(at(0), 64);
        buffer.give(at(64), 32);
        assert_eq!(buffer.chunks[0].gaps.len(), 2, "three neighbours are one gap: {buffer:?}");
        assert_eq!(buffer.take(192), at(0));
        assert_eq!(buffer.peak(), 288);
        assert_eq!(buffer.take(buffer.padded(33)), at(288), "where nothing fits the buffer grows");
        assert_eq!(buffer.peak(), 352);
    }

    #[test]
    fn a_full_chunk_is_followed_by_another() {
        let mut buffer = Buffer::new(1, 100);
        let at = |chunk, offset| Spot { chunk, offset };
        assert_eq!([60, 60, 30].map(|size| buffer.take(size)), [at(0, 0), at(1, 0), at(0, 60)]);
        assert_eq!(buffer.take(300), at(2, 0), "a chunk may hold one tensor that is larger than all");
        assert_eq!(buffer.peak(), 90 + 60 + 300);
        buffer.give(at(0, 0), 60);
        buffer.give(at(1, 0), 60);
        assert_eq!(buffer.take(20), at(0, 0), "the first chunk's gap lies between two others, the second's does not");
        assert_eq!(buffer.take(50), at(1, 0), "what need not grow is taken before what must");
        assert_eq!(buffer.peak(), 90 + 60 + 300);
    }
}
