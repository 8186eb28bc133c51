// The sides of a convolution's product: out[b, r, o] = activation(sum over c, t of weight[r, c, t] * x[b, c, o * stride +
// t * dilation - before], + bias[r]). Steps are channels and taps as the weight has them: its rows are read as they lie.
#pragma once
#include "common/convolution.cuh"

struct Conv {
    const Product &p;

    // The weight [rows, channels of a group, taps].
    struct Lhs {
        static constexpr bool ALONG_DEPTH = true;
        using Held = Place;
        const void *base;
        u32 dtype;
        u32 first, depth;
        DEVICE Place line(u32 row) const { return {(i64)(first + row) * depth, 0, 0, 0}; }
        DEVICE Place step(u32 k) const { return {k, 0, 0, 0}; }
        DEVICE bool find(const Place &row, const Place &step, i64 &at) const {
            at = row.at + step.at;
            return true;
        }
    };
    DEVICE Lhs lhs(u32 group) const { return {p.factor, p.factor_dtype, group * p.rows, p.depth}; }

    DEVICE Window rhs(u32 group) const { return {p.x, p.x_dtype, {p, group}}; }

    // out [batch, rows, positions].
    struct Out {
        const Product &p;
        u32 first;
        DEVICE Place line(u32 row) const { return {(i64)(first + row) * p.all_positions.by, 0, 0, 0}; }
        DEVICE Place column(u32 col) const {
            const u32 sample = split(col, p.all_positions);
            return {(i64)sample * (p.groups * p.rows) * p.all_positions.by + col, 0, 0, 0};
        }
        DEVICE bool find(const Place &row, const Place &col, i64 &at) const {
            at = row.at + col.at;
            return true;
        }
        DEVICE u32 channel(u32 row) const { return first + row; }
    };
    DEVICE Out out(u32 group) const { return {p, group * p.rows}; }
};
