//! The names of `general.file_type`, the mix of types a file was quantised to.

/// Returns the name of a `general.file_type` number as it stands in file names, `Q4_K_M` for
/// example, or nothing for an unknown number.
pub fn file_type_name(number: u64) -> Option<&'static str> {
    // llama.cpp's `llama_ftype`; 4 to 6 and 33 to 35 were given out once and taken back.
    let name = match number {
        0 => "F32",
        1 => "F16",
        2 => "Q4_0",
        3 => "Q4_1",
        7 => "Q8_0",
        8 => "Q5_0",
        9 => "Q5_1",
        10 => "Q2_K",
        11 => "Q3_K_S",
        12 => "Q3_K_M",
        13 => "Q3_K_L",
        14 => "Q4_K_S",
        15 => "Q4_K_M",
        16 => "Q5_K_S",
        17 => "Q5_K_M",
        18 => "Q6_K",
        19 => "IQ2_XXS",
        20 => "IQ2_XS",
        21 => "Q2_K_S",
        22 => "IQ3_XS",
        23 => "IQ3_XXS",
        24 => "IQ1_S",
        25 => "IQ4_NL",
        26 => "IQ3_S",
        27 => "IQ3_M",
        28 => "IQ2_S",
        29 => "IQ2_M",
        30 => "IQ4_XS",
        31 => "IQ1_M",
        32 => "BF16",
        36 => "TQ1_0",
        37 => "TQ2_0",
        38 => "MXFP4_MOE",
        39 => "NVFP4",
        40 => "Q1_0",
        41 => "Q2_0",
        _ => return None,
    };
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::file_type_name;

    #[test]
    fn a_file_type_number_has_the_name_seen_in_file_names() {
        assert_eq!(file_type_name(15), Some("Q4_K_M"));
        assert_eq!(file_type_name(7), Some("Q8_0"));
        assert_eq!(file_type_name(38), Some("MXFP4_MOE"));
    }

    #[test]
    fn a_removed_or_future_file_type_number_has_no_name() {
        for number in [4, 5, 6, 33, 34, 35, 42, 1_024, u64::MAX] {
            assert_eq!(file_type_name(number), None, "{number}");
        }
    }
}
