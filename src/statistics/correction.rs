//! Adjusted p for families of tests (`multipletests` of statsmodels 0.15).
//! It does not know what belongs to a family.

/// Bonferroni: each p times their number, at most 1.
pub fn bonferroni(p: &[f64]) -> Vec<f64> {
    p.iter().map(|one| (one * p.len() as f64).min(1.0)).collect()
}

/// Holm (1979), step-down: controls the chance of any false finding, whatever depends on what.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let order = ascending(p);
    let mut adjusted = vec![0.0; p.len()];
    let mut most = 0.0_f64;
    for (rank, at) in order.into_iter().enumerate() {
        most = most.max((p[at] * (p.len() - rank) as f64).min(1.0));
        adjusted[at] = most;
    }
    adjusted
}

/// Benjamini and Hochberg (1995), step-up: controls the share of false findings.
pub fn benjamini_hochberg(p: &[f64]) -> Vec<f64> {
    let order = ascending(p);
    let mut adjusted = vec![0.0; p.len()];
    let mut least = 1.0_f64;
    for (rank, at) in order.into_iter().enumerate().rev() {
        least = least.min(p[at] * (p.len() as f64 / (rank + 1) as f64));
        adjusted[at] = least;
    }
    adjusted
}

fn ascending(p: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|a, b| p[*a].total_cmp(&p[*b]));
    order
}
