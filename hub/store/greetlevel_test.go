package store

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
)

// greetBoth has two members tell each other their levels, and returns what each
// makes of it and whether it stops.
func greetBoth(t *testing.T, a, b tellLevels) (errs [2]error, stopped [2]bool) {
	t.Helper()
	one, other := connected(t)
	done := make(chan struct{})
	tell := func(i int, mine tellLevels, conn net.Conn, peer string) {
		mine.stop = func(error) { stopped[i] = true }
		errs[i] = (&introduction{levels: func() tellLevels { return mine }}).compareLevels(conn, peer, true)
	}
	go func() {
		defer close(done)
		tell(1, b, other, a.member)
	}()
	tell(0, a, one, b.member)
	<-done
	return errs, stopped
}

// connected are both ends of a connection; each may write before it reads.
func connected(t *testing.T) (net.Conn, net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	one, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	other, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = one.Close(), other.Close() })
	return one, other
}

func TestMembersTellEachOtherWhatTheyUnderstand(t *testing.T) {
	for _, test := range []struct {
		a, b tellLevels
		old  string // who is refused
	}{
		{tellLevels{level: 1, understands: 1}, tellLevels{level: 1, understands: 2}, ""},
		{tellLevels{level: 2, understands: 2}, tellLevels{level: 1, understands: 2}, ""}, // it lags, or is new
		{tellLevels{level: 2, understands: 3}, tellLevels{level: 1, understands: 1}, "b"},
		{tellLevels{level: 1, understands: 1}, tellLevels{level: 2, understands: 2}, "a"},
	} {
		test.a.member, test.b.member = "a", "b"
		errs, stopped := greetBoth(t, test.a, test.b)
		for i, name := range []string{"a", "b"} {
			if (errs[i] != nil) != (test.old != "") || stopped[i] != (test.old == name) {
				t.Errorf("%+v: %s finds %v and stops: %t", test, name, errs[i], stopped[i])
			}
			if test.old != "" && (!errors.Is(errs[i], ErrTooOld) || !strings.Contains(errs[i].Error(), fmt.Sprintf("member %q understands", test.old))) {
				t.Errorf("%+v: %s says %v", test, name, errs[i])
			}
		}
	}
}

// TestABuildWithoutLevelsUnderstandsTheFirst: nothing is sent to it that it would
// take for Raft.
func TestABuildWithoutLevelsUnderstandsTheFirst(t *testing.T) {
	for level, want := range map[uint32]error{1: nil, 2: ErrTooOld} {
		mine := tellLevels{member: "a", level: level, understands: 2, stop: func(err error) { t.Errorf("it stops: %v", err) }}
		err := (&introduction{levels: func() tellLevels { return mine }}).compareLevels(nil, "b", false)
		if !errors.Is(err, want) {
			t.Errorf("at level %d: %v, want %v", level, err, want)
		}
	}
}
