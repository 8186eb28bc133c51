//! Tables for processors that look values up in registers, computed when the program is compiled.

/// 2^(i/32).
pub static EXP2: [f32; 32] = {
    let mut table = [0.0; 32];
    let mut i = 0;
    while i < 32 {
        table[i] = exp(i as f64 / 32.0 * std::f64::consts::LN_2) as f32;
        i += 1;
    }
    table
};

/// Coefficients of 32 cubics, the lowest power first: a function on [0, `end`) in pieces of equal length, in each of which the
/// variable runs from 0 to 1, in units of a piece's length. The last piece is 0.
pub struct Cubics {
    pub end: f32,
    pub coefficients: [[f32; 32]; 4],
}

/// Odd functions that end at ±1/2, less 1/2: what a gate that opens by them lacks.
#[derive(Clone, Copy)]
enum Lack {
    /// erf(x/√2)/2 - 1/2
    Normal,
    /// tanh(√(2/π)·(x + 0.044715·x³))/2 - 1/2
    Tanh,
}

/// Where the last piece begins they are -6e-8, half an epsilon.
pub static NORMAL: Cubics = cubics(Lack::Normal, 5.47);
pub static TANH: Cubics = cubics(Lack::Tanh, 5.12);

/// Through the function's values at four Chebyshev nodes of each piece.
const fn cubics(lack: Lack, end: f64) -> Cubics {
    // (1 + cos((2k + 1)·π/8))/2
    const NODES: [f64; 4] =
        [0.961_939_766_255_643_4, 0.691_341_716_182_544_9, 0.308_658_283_817_455_1, 0.038_060_233_744_356_65];
    let mut coefficients = [[0.0; 32]; 4];
    let mut piece = 0;
    while piece < 31 {
        let mut d = [0.0; 4];
        let mut k = 0;
        while k < 4 {
            d[k] = lack.at((piece as f64 + NODES[k]) * end / 32.0) * end / 32.0;
            k += 1;
        }
        // Divided differences, then Newton's form multiplied out.
        let mut order = 1;
        while order < 4 {
            k = 3;
            while k >= order {
                d[k] = (d[k] - d[k - 1]) / (NODES[k] - NODES[k - order]);
                k -= 1;
            }
            order += 1;
        }
        let mut p = [d[3], 0.0, 0.0, 0.0];
        k = 3;
        while k > 0 {
            k -= 1;
            p = [d[k] - NODES[k] * p[0], p[0] - NODES[k] * p[1], p[1] - NODES[k] * p[2], p[2] - NODES[k] * p[3]];
        }
        k = 0;
        while k < 4 {
            coefficients[k][piece] = p[k] as f32;
            k += 1;
        }
        piece += 1;
    }
    Cubics { end: end as f32, coefficients }
}

impl Lack {
    /// For x in [0, 6], to 1e-9.
    const fn at(self, x: f64) -> f64 {
        match self {
            // -1/2 + Σ (-x²/2)^k / k! · x / (2k + 1) / √(2π)
            Lack::Normal => {
                let (mut term, mut sum, mut k) = (0.398_942_280_401_432_7 * x, -0.5, 0.0);
                while k < 100.0 {
                    sum += term / (2.0 * k + 1.0);
                    k += 1.0;
                    term *= -0.5 * x * x / k;
                }
                sum
            }
            // -1/(1 + e^2v)
            Lack::Tanh => -1.0 / (1.0 + exp(1.595_769_121_605_731 * (x + 0.044715 * x * x * x))),
        }
    }
}

/// e^x for x in [0, 30].
const fn exp(x: f64) -> f64 {
    let (mut term, mut sum, mut k) = (1.0, 0.0, 0.0);
    while k < 150.0 {
        sum += term;
        k += 1.0;
        term *= x / k;
    }
    sum
}
