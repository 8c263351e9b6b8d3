// Package report prints what a benchmark measured: one JSON object a line, ours
// beside the peer's, a loss like a win.
package report

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
)

// Better says which way a figure is good.
type Better string

// The two ways.
const (
	Higher Better = "higher"
	Lower  Better = "lower"
)

// Row is one figure of ours beside the peer's.
type Row struct {
	// Bench names the row, for instance store/put/3/c=16/256B.
	Bench  string  `json:"bench"`
	Ours   float64 `json:"ours"`
	Peer   string  `json:"peer"`
	Theirs float64 `json:"theirs"`
	Unit   string  `json:"unit"`
	// Ratio is ours divided by theirs, whichever way is better.
	Ratio  float64 `json:"ratio"`
	Better Better  `json:"better"`
}

// Print writes the row with three significant digits.
func (r Row) Print(out io.Writer) error {
	if r.Theirs != 0 {
		r.Ratio = round(r.Ours / r.Theirs)
	}
	r.Ours, r.Theirs = round(r.Ours), round(r.Theirs)
	line, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode row %s: %w", r.Bench, err)
	}
	_, err = fmt.Fprintf(out, "%s\n", line)
	return err
}

func round(x float64) float64 {
	rounded, _ := strconv.ParseFloat(strconv.FormatFloat(x, 'g', 3, 64), 64) // it was a number before
	return rounded
}
