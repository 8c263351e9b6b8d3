package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"tripod.dev/tripod/test/robustness/model"
	"tripod.dev/tripod/test/robustness/validate"
)

// prepare builds the program of a member and gives a folder whose name is short
// enough for unix sockets.
func prepare(t *testing.T) settings {
	t.Helper()
	if testing.Short() {
		t.Skip("real processes take their time")
	}
	folder, err := os.MkdirTemp("", "robust-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !t.Failed() {
			_ = os.RemoveAll(folder)
		}
	})
	program := filepath.Join(t.TempDir(), "storemember")
	if out, err := exec.Command("go", "build", "-o", program, "tripod.dev/tripod/test/storemember").CombinedOutput(); err != nil {
		t.Fatalf("build a member: %v: %s", err, out)
	}
	return settings{program: program, folder: folder}
}

// TestRounds is a short slice of `make robustness`; its seeds have faults of every
// sort.
func TestRounds(t *testing.T) {
	s := prepare(t)
	total := newTally()
	for _, round := range []struct {
		seed    uint64
		members int
	}{{2, 3}, {5, 5}, {11, 3}} {
		o := play(t.Context(), s.program, s.folder, newPlan(round.seed, round.members, 5, false))
		total.add(o)
		t.Log(line(o))
		if o.bad() {
			t.Fail()
		}
	}
	var table strings.Builder
	total.print(&table)
	t.Log(table.String())
	if total.operations["put done"] == 0 || total.operations["watch event"] == 0 {
		t.Fatal("nothing was done, so this test shows nothing")
	}
}

func TestDamage(t *testing.T) {
	s := prepare(t)
	s.seed, s.members = 1, 3
	var table strings.Builder
	err := damage(t.Context(), s, 16, &table)
	t.Log(table.String())
	if err != nil {
		t.Fatal(err)
	}
}

// TestAHistoryIsDrawn is for the page that a bad round leaves.
func TestAHistoryIsDrawn(t *testing.T) {
	h := model.History{Operations: []model.Operation{
		{Request: model.Request{Kind: model.Put, Key: "r/1", Value: "v1"}, Call: 1, Return: 2, Response: &model.Response{Revision: 2}},
	}}
	file := filepath.Join(t.TempDir(), "order.html")
	if err := validate.Draw(&h, file, searching); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || info.Size() == 0 {
		t.Fatalf("%v %v", info, err)
	}
}
