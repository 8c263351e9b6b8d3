package volume_test

import (
	"os"
	"strings"
	"testing"

	"tripod.dev/tripod/failover/guard/volume"
)

type memory struct{ Epoch int64 }

func open(t *testing.T, dir string) *volume.Volume {
	t.Helper()
	v, err := volume.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = v.Close() })
	return v
}

func TestAVolumeHasOneGuard(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	if _, err := volume.Open(dir); err == nil || !strings.Contains(err.Error(), "held by another guard") {
		t.Errorf("a second guard took the volume: %v", err)
	}
}

func TestMemoryOutlivesTheGuard(t *testing.T) {
	dir := t.TempDir()
	v := open(t, dir)
	got := memory{Epoch: 7}
	if err := v.Load(&got); err != nil || got.Epoch != 7 {
		t.Errorf("an empty volume changed the memory: %v %v", got, err)
	}
	if err := v.Save(memory{Epoch: 8}); err != nil {
		t.Fatal(err)
	}
	_ = v.Close()
	if err := open(t, dir).Load(&got); err != nil || got.Epoch != 8 {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestADamagedMemoryIsNotTakenForAnEmptyOne(t *testing.T) {
	dir := t.TempDir()
	v := open(t, dir)
	if err := os.WriteFile(v.Path("tripod", "state.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := v.Load(&memory{}); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("got %v", err)
	}
}
