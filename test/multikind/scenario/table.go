package scenario

import (
	"fmt"
	"slices"
	"strings"
)

// The table's place in its page.
const (
	tableBegin = "<!-- table of make scenarios: begin -->"
	tableEnd   = "<!-- table of make scenarios: end -->"
)

const neverPlayed = "not played yet"

// document returns the page with the table of the catalogue and the outcomes. It
// is pure.
func document(page string, outcomes []Outcome) (string, error) {
	before, rest, ok := strings.Cut(page, tableBegin)
	old, after, found := strings.Cut(rest, tableEnd)
	if !ok || !found {
		return "", errNoMarks
	}
	figures := oldFigures(old)
	for test, of := range byTest(outcomes) {
		figures[test] = summary(of)
	}
	return before + tableBegin + "\n" + table(figures) + tableEnd + after, nil
}

func table(figures map[string]string) string {
	var covered, missing strings.Builder
	covered.WriteString("| # | disaster | passes when | test | in `make test` | last figures |\n|---|---|---|---|---|---|\n")
	missing.WriteString("\nNot covered in the lab yet:\n\n| # | disaster | why |\n|---|---|---|\n")
	none := true
	for _, s := range Catalogue() {
		for _, p := range s.Proofs {
			slice := "no"
			if p.Slice {
				slice = "yes"
			}
			figure := figures[p.Test]
			if figure == "" {
				figure = neverPlayed
			}
			fmt.Fprintf(&covered, "| %s | %s | %s | `%s` | %s | %s |\n", s.ID, s.Disaster, s.Passes, p.Test, slice, figure)
		}
		if s.Missing != "" {
			none = false
			fmt.Fprintf(&missing, "| %s | %s | %s |\n", s.ID, s.Disaster, s.Missing)
		}
	}
	if none {
		return covered.String()
	}
	return covered.String() + missing.String()
}

// oldFigures reads the last cell of each row that names a test.
func oldFigures(table string) map[string]string {
	figures := map[string]string{}
	for line := range strings.Lines(table) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if len(cells) != 6 {
			continue
		}
		if test := strings.Trim(strings.TrimSpace(cells[3]), "`"); strings.HasPrefix(test, "Test") {
			figures[test] = strings.TrimSpace(cells[5])
		}
	}
	return figures
}

func byTest(outcomes []Outcome) map[string][]Outcome {
	tests := map[string][]Outcome{}
	for _, o := range outcomes {
		tests[o.Test] = append(tests[o.Test], o)
	}
	return tests
}

// summary is one test's rounds in words: counts are summed up, times are the worst.
func summary(rounds []Outcome) string {
	passed, longest := 0, 0.0
	var rto, beyond []float64
	var counts [3]*int
	for _, o := range rounds {
		if o.Passed {
			passed++
		}
		longest = max(longest, o.Duration)
		if o.RTO != nil {
			rto = append(rto, *o.RTO)
		}
		if o.BeyondDrivers != nil {
			beyond = append(beyond, *o.BeyondDrivers)
		}
		for i, c := range []*int{o.Lost, o.Duplicated, o.TwoEpochs} {
			counts[i] = plus(counts[i], c)
		}
	}
	words := []string{fmt.Sprintf("%d of %d passed", passed, len(rounds))}
	if len(rto) > 0 {
		words = append(words, fmt.Sprintf("RTO %.1f s", slices.Max(rto)))
	}
	if len(beyond) > 0 {
		words = append(words, fmt.Sprintf("%.1f s beyond the drivers", slices.Max(beyond)))
	}
	for i, name := range []string{"lost", "double", "by two epochs"} {
		if counts[i] != nil {
			words = append(words, fmt.Sprintf("%d %s", *counts[i], name))
		}
	}
	return strings.Join(append(words, fmt.Sprintf("%.0f s long", longest)), ", ")
}

func plus(sum, more *int) *int {
	if more == nil {
		return sum
	}
	total := *more
	if sum != nil {
		total += *sum
	}
	return &total
}
