package main

import (
	"path/filepath"
	"strings"
	"testing"

	"tripod.dev/tripod/test/robustness/bugs"
)

// TestUpgrade replaces the members of a fleet one by one under traffic.
func TestUpgrade(t *testing.T) {
	s := prepare(t)
	if err := playUpgrade(t.Context(), s.program, s.folder); err != nil {
		t.Fatal(err)
	}
}

// TestAnEarlyRaiseIsFound shows that TestUpgrade fails when the level is raised
// while a member does not understand it.
func TestAnEarlyRaiseIsFound(t *testing.T) {
	for _, bug := range bugs.Upgrade {
		t.Run(bug.Name, func(t *testing.T) {
			s := prepare(t)
			root, err := filepath.Abs("../..")
			if err != nil {
				t.Fatal(err)
			}
			if err := bug.Build(t.Context(), root, s.program); err != nil {
				t.Fatal(err)
			}
			err = playUpgrade(t.Context(), s.program, s.folder)
			if err == nil {
				t.Fatal("the bug was not found")
			}
			t.Log(strings.SplitN(err.Error(), "\n", 2)[0])
		})
	}
}
