// The sides of a transposed convolution's product: out[b, r, i * stride + k * dilation - before] += weight[c, r, k] * x[b, c, i],
// plus bias[r].
//
// Each output is gathered. Along an axis of stride s the point o + before = s*j + f of phase f gets tap k = s*t + f from point
// j - t: s * rows rows of an ordinary convolution of stride 1, whose taps are t, whose positions are j, and whose results are
// interleaved. With a dilation d the tap is (s*t + f) / d where that is whole; where s divides d (always if it is 1) only
// every d/s-th t is walked. Phases without a t-th tap multiply by zero, which makes NaN of points that are not finite: there
// are none where s divides the number of taps and d is 1. Taps are walked from the last to the first, so that points ascend.
#pragma once
#include "common/convolution.cuh"

// As `Spread::pass` passes it: how positions of the window become those of the result.
struct Spread {
    i32 tap_step[3], lead[3];
    u32 kernel[3], all_kernel, out_size[3], all_out;
    Divisor every[3], phases[3], all_phases;
};

struct ConvTranspose {
    const Product &p;
    const Spread &s;

    DEVICE u32 rows_out() const { return p.rows / s.all_phases; }
    // Phases of a row; it becomes the row of the result.
    DEVICE Place phase(u32 &row) const {
        Place f;
        u32 rest = row;
        row = split(rest, s.all_phases);
        unravel(rest, s.phases, f.d, f.h, f.w);
        return f;
    }

    // The weight [channels, rows, taps].
    struct Lhs {
        static constexpr bool ALONG_DEPTH = false;
        using Held = Place;
        const void *base;
        u32 dtype;
        const ConvTranspose &op;
        u32 group;
        DEVICE Place line(u32 row) const {
            Place f = op.phase(row);
            f.at = ((i64)group * op.p.channels * op.rows_out() + row) * op.s.all_kernel;
            return f;
        }
        DEVICE Place step(u32 k) const {
            const Product &p = op.p;
            const u32 c = split(k, p.all_taps);
            Place t;
            unravel(k, p.taps, t.d, t.h, t.w);
            t.d = (i32)(p.taps[0].by - 1 - t.d) * op.s.tap_step[0];
            t.h = (i32)(p.taps[1].by - 1 - t.h) * op.s.tap_step[1];
            t.w = (i32)(p.taps[2].by - 1 - t.w) * op.s.tap_step[2];
            t.at = (i64)c * op.rows_out() * op.s.all_kernel;
            return t;
        }
        DEVICE bool find(const Place &row, const Place &step, i64 &at) const {
            const Spread &s = op.s;
            u32 d = row.d + step.d, h = row.h + step.h, w = row.w + step.w;
            const u32 kd = split(d, s.every[0]), kh = split(h, s.every[1]), kw = split(w, s.every[2]);
            at = row.at + step.at + ((i64)kd * s.kernel[1] + kh) * s.kernel[2] + kw;
            return ((d | h | w) == 0) & (kd < s.kernel[0]) & (kh < s.kernel[1]) & (kw < s.kernel[2]);
        }
        DEVICE bool is_masked() const { return false; }
        DEVICE Held hold(u32 row) const { return line(row); }
        DEVICE Listed list(u32 k) const { return listed(step(k)); }
        template <bool MASKED>
        DEVICE bool find(const Held &row, const Listed &step, i64 &at) const {
            return find(row, placed(step), at) & (step.at >= 0);
        }
    };
    DEVICE Lhs lhs(u32 group) const { return {p.factor, p.factor_dtype, *this, group}; }

    DEVICE Window rhs(u32 group) const { return {p.x, p.x_dtype, {p, group}}; }

    // out [batch, rows, ...].
    struct Out {
        const ConvTranspose &op;
        u32 group;
        DEVICE u32 channel(u32 row) const { return group * op.rows_out() + row / op.s.all_phases; }
        DEVICE Place line(u32 row) const {
            Place f = op.phase(row);
            f.at = ((i64)group * op.rows_out() + row) * op.s.all_out;
            return f;
        }
        DEVICE Place column(u32 col) const {
            const Spread &s = op.s;
            const u32 sample = split(col, op.p.all_positions);
            Place j;
            unravel(col, op.p.positions, j.d, j.h, j.w);
            j.d = j.d * (i32)s.phases[0].by - s.lead[0];
            j.h = j.h * (i32)s.phases[1].by - s.lead[1];
            j.w = j.w * (i32)s.phases[2].by - s.lead[2];
            j.at = (i64)sample * op.p.groups * op.rows_out() * s.all_out;
            return j;
        }
        DEVICE bool find(const Place &row, const Place &col, i64 &at) const {
            const Spread &s = op.s;
            const u32 d = row.d + col.d, h = row.h + col.h, w = row.w + col.w;
            at = row.at + col.at + ((i64)d * s.out_size[1] + h) * s.out_size[2] + w;
            return d < s.out_size[0] && h < s.out_size[1] && w < s.out_size[2];
        }
    };
    DEVICE Out out(u32 group) const { return {*this, group}; }
};
