//! The icon, drawn by arithmetic at any size.
//!
//! A gauge whose shape carries the state; colour only repeats it. The colours are mid-tones with a
//! dark rim, because nobody can know how bright the panel is.

/// The icon's state; each has a shape of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Icon {
    /// At least one model fits: a filled gauge.
    Ready,
    /// Models fit only in part: a gauge filled by half.
    Partly,
    /// Nothing fits, or there is nothing to judge: a hollow gauge.
    Empty,
    /// Alerts are paused: a gauge with a slash.
    Paused,
    /// Something that matters cannot be measured: a gauge with a question mark.
    CannotMeasure,
}

/// Samples along each side of a pixel.
const SAMPLES: u32 = 4;
/// The gauge's middle and outer radius; the picture's side is 1.
const MIDDLE: (f32, f32) = (0.5, 0.53);
const RADIUS: f32 = 0.455;
/// How thick the gauge's ring is.
const RING: f32 = 0.10;
/// How wide the rim around the gauge is.
const RIM: f32 = 0.025;
/// The rim's colour and how much of it is seen.
const RIM_COLOUR: [f32; 3] = [22.0, 26.0, 32.0];
const RIM_ALPHA: f32 = 0.5;

impl Icon {
    /// Every state.
    pub const ALL: [Icon; 5] = [Icon::Ready, Icon::Partly, Icon::Empty, Icon::Paused, Icon::CannotMeasure];

    /// Returns the colour that repeats what the shape says.
    const fn colour(self) -> [f32; 3] {
        match self {
            Icon::Ready => [64.0, 184.0, 112.0],
            Icon::Partly => [226.0, 154.0, 44.0],
            Icon::Empty | Icon::Paused => [148.0, 156.0, 168.0],
            Icon::CannotMeasure => [122.0, 146.0, 226.0],
        }
    }
}

/// Draws an icon of `size` × `size` pixels: red, green, blue and alpha of each, row by row.
pub fn pixels(icon: Icon, size: u32) -> Vec<u8> {
    let mut pixels = Vec::new();
    for row in 0..size {
        for column in 0..size {
            pixels.extend(pixel(icon, column, row, size));
        }
    }
    pixels
}

/// Returns one pixel: the mean of its samples.
fn pixel(icon: Icon, column: u32, row: u32, size: u32) -> [u8; 4] {
    let step = 1.0 / (size * SAMPLES) as f32;
    let (mut ink, mut rim) = (0.0, 0.0);
    for sample in 0..SAMPLES * SAMPLES {
        let x = (column * SAMPLES + sample % SAMPLES) as f32 * step + step / 2.0;
        let y = (row * SAMPLES + sample / SAMPLES) as f32 * step + step / 2.0;
        let distance = distance(icon, x, y);
        if distance <= 0.0 {
            ink += 1.0;
        } else if distance <= RIM && !is_inside(x, y) {
            rim += RIM_ALPHA;
        }
    }
    let alpha = ink + rim;
    if alpha == 0.0 {
        return [0; 4];
    }
    let colour = icon.colour();
    let mixed = |channel: usize| (colour[channel] * ink + RIM_COLOUR[channel] * rim) / alpha;
    let all = (SAMPLES * SAMPLES) as f32;
    [byte(mixed(0)), byte(mixed(1)), byte(mixed(2)), byte(255.0 * alpha / all)]
}

/// Returns how far a point is from the icon's shape; negative inside it.
fn distance(icon: Icon, x: f32, y: f32) -> f32 {
    let (x, y) = (x - MIDDLE.0, y - MIDDLE.1);
    let radius = x.hypot(y);
    let opening = x.abs() * 0.766 - y * 0.643;
    let ring = (radius - RADIUS).max(RADIUS - RING - radius).max(-opening);
    let inside = (radius - (RADIUS - RING - 0.065)).max(-opening);
    match icon {
        Icon::Empty => ring,
        Icon::Ready => {
            // The needle is cut out of the filling, and stands at the full end.
            let needle = segment(x, y, (0.0, 0.02), (0.30, -0.17)) - 0.045;
            ring.min(inside.max(-needle))
        }
        Icon::Partly => ring.min(inside.max(x)),
        Icon::Paused => {
            let slash = segment(x, y, (-0.37, 0.37), (0.37, -0.37));
            ring.max(0.12 - slash).min(slash - 0.06)
        }
        Icon::CannotMeasure => ring.min(question_mark(x, y)),
    }
}

/// Returns whether a point lies inside the gauge's ring, where a rim would only fill the gaps.
fn is_inside(x: f32, y: f32) -> bool {
    (x - MIDDLE.0).hypot(y - MIDDLE.1) < RADIUS - RING
}

/// Returns how far a point is from a question mark in the middle.
fn question_mark(x: f32, y: f32) -> f32 {
    const THICKNESS: f32 = 0.05;
    let (above, bow) = (y + 0.09, 0.115);
    let hook = if x < 0.0 && above > 0.0 {
        // The bow leaves out its lower left quarter and ends round.
        (x + bow).hypot(above).min(x.hypot(above - bow))
    } else {
        (x.hypot(above) - bow).abs()
    };
    let stem = segment(x, y, (0.0, 0.025), (0.0, 0.075));
    let dot = x.hypot(y - 0.215) - 0.015;
    hook.min(stem).min(dot) - THICKNESS
}

/// Returns how far a point is from a line between two others.
fn segment(x: f32, y: f32, from: (f32, f32), to: (f32, f32)) -> f32 {
    let (along_x, along_y) = (to.0 - from.0, to.1 - from.1);
    let (x, y) = (x - from.0, y - from.1);
    let share = ((x * along_x + y * along_y) / (along_x * along_x + along_y * along_y)).clamp(0.0, 1.0);
    (x - share * along_x).hypot(y - share * along_y)
}

/// Returns a channel as a byte.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the range of a byte")]
fn byte(channel: f32) -> u8 {
    channel.round().clamp(0.0, 255.0) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_has_a_shape_of_its_own_at_16_pixels_in_one_colour() {
        for (index, icon) in Icon::ALL.into_iter().enumerate() {
            for other in &Icon::ALL[index + 1..] {
                let differing = differing_pixels(&alphas(icon, 16), &alphas(*other, 16));
                assert!(differing >= 16, "{icon:?} and {other:?} differ in {differing} of 256 pixels");
            }
        }
    }

    #[test]
    fn a_picture_has_four_bytes_a_pixel_and_clear_corners() {
        for size in [0, 1, 16, 22, 24, 48, 64] {
            for icon in Icon::ALL {
                assert_eq!(pixels(icon, size).len(), (size * size * 4) as usize);
            }
        }
        assert_eq!(&pixels(Icon::Ready, 24)[..4], &[0; 4]);
    }

    #[test]
    fn a_picture_reaches_near_its_edges_and_not_over_them() {
        for icon in Icon::ALL {
            let alphas = alphas(icon, 48);
            let rows: Vec<usize> = (0..48).filter(|row| alphas[row * 48..][..48].iter().any(|a| *a > 127)).collect();
            assert!((1..=4).contains(&rows[0]) && rows[rows.len() - 1] <= 46, "{icon:?}: {rows:?}");
        }
    }

    #[test]
    fn a_smaller_picture_shows_the_same_shape() {
        for icon in Icon::ALL {
            let (small, large) = (alphas(icon, 16), alphas(icon, 64));
            let scaled: Vec<u8> = (0..256)
                .map(|index| {
                    let (row, column) = (index / 16 * 4, index % 16 * 4);
                    let sum: u32 =
                        (0..16).map(|part| u32::from(large[(row + part / 4) * 64 + column + part % 4])).sum();
                    u8::try_from(sum / 16).unwrap()
                })
                .collect();
            assert!(differing_pixels(&small, &scaled) < 6, "{icon:?}");
        }
    }

    /// Returns how many pixels' worth of opacity differs.
    fn differing_pixels(one: &[u8], other: &[u8]) -> u32 {
        one.iter().zip(other).map(|(one, other)| u32::from(one.abs_diff(*other))).sum::<u32>() / 255
    }

    fn alphas(icon: Icon, size: u32) -> Vec<u8> {
        pixels(icon, size).into_iter().skip(3).step_by(4).collect()
    }
}
