package identity

import (
	"context"
	"strings"
	"testing"
	"time"
)

func TestAProgramThatIsTooOldGetsNoBundle(t *testing.T) {
	n := newNetwork(t)
	a := open(t, n.config("a"))
	a.Require(func() uint32 { return 2 })
	n.serve("a", a)
	for understands, taken := range map[uint32]bool{0: false, 1: false, 2: true, 3: true} {
		config := n.config("b")
		config.Understands = understands
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, err := Open(ctx, config)
		if taken && err != nil {
			t.Errorf("understands %d: %v", understands, err)
		}
		if !taken && (err == nil || !strings.Contains(err.Error(), `the tripod-hub of member "b" understands the command set up to level 1, and level 2 is in force: install`)) {
			t.Errorf("understands %d: %v, want a refusal with the remedy", understands, err)
		}
	}
}
