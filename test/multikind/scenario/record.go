package scenario

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"tripod.dev/tripod/test/multikind/validate"
)

// Outcome is what came of one test of a scenario in one round. A figure that the
// test did not take is missing.
type Outcome struct {
	Scenario string `json:"scenario,omitempty"`
	Test     string `json:"test"`
	Round    int    `json:"round"`
	Passed   bool   `json:"passed"`
	// RTO is the longest time, in seconds, from a fault to the acknowledgement of a
	// transfer that was sent after it.
	RTO *float64 `json:"rto,omitempty"`
	// BeyondDrivers is how long many applications took, in seconds, over what their
	// slowest drivers take.
	BeyondDrivers *float64 `json:"beyond-drivers,omitempty"`
	// What the audit counted.
	Lost       *int `json:"lost,omitempty"`
	Duplicated *int `json:"duplicated,omitempty"`
	TwoEpochs  *int `json:"two-epochs,omitempty"`
	// Duration is in seconds, the repair of the fleet before it included.
	Duration float64 `json:"duration"`
}

// measure takes over the figures of the business that the scenario was played on.
func (o *Outcome) measure(outage time.Duration, audited *validate.Report) {
	if outage > 0 {
		rto := seconds(outage)
		o.RTO = &rto
	}
	if audited != nil {
		o.Lost, o.Duplicated, o.TwoEpochs = &audited.Lost, &audited.Duplicated, &audited.AcceptedByTwoEpochs
	}
}

// Recorder keeps the outcomes of one run of the suite. One goroutine uses it.
type Recorder struct {
	// Folder is where result.json goes; with an empty one nothing is written.
	Folder   string
	outcomes []Outcome
}

// Round is the number of the round that a test is in when it starts.
func (r *Recorder) Round(test string) int {
	round := 1
	for _, o := range r.outcomes {
		if o.Test == test {
			round++
		}
	}
	return round
}

// Add appends an outcome; result.json has it when Add returns, so that a suite that is
// ended early has told what it saw.
func (r *Recorder) Add(o Outcome) error {
	for _, s := range Catalogue() {
		if slices.ContainsFunc(s.Proofs, func(p Proof) bool { return p.Test == o.Test }) {
			o.Scenario = s.ID
		}
	}
	r.outcomes = append(r.outcomes, o)
	if r.Folder == "" {
		return nil
	}
	text, err := json.MarshalIndent(r.outcomes, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the outcomes: %w", err)
	}
	if err := os.MkdirAll(r.Folder, 0o755); err != nil {
		return fmt.Errorf("record the outcomes: %w", err)
	}
	if err := os.WriteFile(filepath.Join(r.Folder, "result.json"), append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("record the outcomes: %w", err)
	}
	return nil
}

// Document writes the table of all scenarios into the page at path, between its
// marks. Tests that were not played this time keep the figures that the page had.
func (r *Recorder) Document(path string) error {
	page, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read the page of the scenarios: %w", err)
	}
	after, err := document(string(page), r.outcomes)
	if err != nil {
		return fmt.Errorf("write the table of %s: %w", path, err)
	}
	if err := os.WriteFile(path, []byte(after), 0o644); err != nil {
		return fmt.Errorf("write the page of the scenarios: %w", err)
	}
	return nil
}

var errNoMarks = errors.New("it lacks the marks " + tableBegin + " and " + tableEnd)
