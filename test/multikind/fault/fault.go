// Package fault is the vocabulary of what a lab can do to a fleet. It is pure: a
// Fault says what, the lab does it and answers with an Effect.
package fault

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Kind is what a fault does.
type Kind string

// The kinds, named as on the command line.
const (
	PowerOff Kind = "power-off"
	PowerOn  Kind = "power-on"
	Cut      Kind = "cut"
	Isolate  Kind = "isolate"
	SlowDisk Kind = "slow-disk"
	Heal     Kind = "heal"
	Kill     Kind = "kill"
	Stop     Kind = "stop"
	Cont     Kind = "cont"
)

// Outside stands for everything beyond the lab's centers: the host and the clients
// on it.
const Outside = "outside"

// Fault is one thing to do. Which fields count depends on Kind.
type Fault struct {
	Kind Kind `json:"kind"`
	// Center is where it happens; for Cut, where the lost packets come from.
	Center string `json:"center,omitempty"`
	// Peer is where the packets lost by Cut were going.
	Peer string `json:"peer,omitempty"`
	// OneWay limits Cut to packets from Center to Peer.
	OneWay bool `json:"oneWay,omitempty"`
	// Process is the victim of Kill, Stop and Cont.
	Process string `json:"process,omitempty"`
}

// Effect is a fault that took effect.
type Effect struct {
	Fault
	// Monotonic is the machine's CLOCK_MONOTONIC when the fault was in force: the one
	// clock that every process of the lab shares.
	Monotonic time.Duration `json:"monotonicNanoseconds"`
	Wall      time.Time     `json:"wall"`
	// Processes is how many processes were struck.
	Processes int `json:"processes,omitempty"`
}

// usage is the shape of each kind's arguments.
var usage = map[Kind]string{
	PowerOff: "CENTER",
	PowerOn:  "CENTER",
	Cut:      "CENTER CENTER|outside [--one-way]",
	Isolate:  "CENTER",
	SlowDisk: "CENTER",
	Heal:     "",
	Kill:     "PROCESS@CENTER",
	Stop:     "PROCESS@CENTER",
	Cont:     "PROCESS@CENTER",
}

// Parse reads a fault as written on the command line. Names of centers and processes
// are not checked here.
func Parse(arguments []string, oneWay bool) (Fault, error) {
	if len(arguments) == 0 {
		return Fault{}, fmt.Errorf("fault: want one of %s", kinds())
	}
	f := Fault{Kind: Kind(arguments[0]), OneWay: oneWay}
	shape, known := usage[f.Kind]
	if !known {
		return Fault{}, fmt.Errorf("fault: %q is not a fault; want one of %s", f.Kind, kinds())
	}
	rest := arguments[1:]
	wrong := fmt.Errorf("fault: want %q, got %q", strings.TrimSpace(string(f.Kind)+" "+shape), strings.Join(arguments, " "))
	if oneWay && f.Kind != Cut {
		return Fault{}, wrong
	}
	switch f.Kind {
	case Heal:
		if len(rest) != 0 {
			return Fault{}, wrong
		}
	case Cut:
		if len(rest) != 2 || rest[0] == rest[1] {
			return Fault{}, wrong
		}
		f.Center, f.Peer = rest[0], rest[1]
	case Kill, Stop, Cont:
		if len(rest) != 1 {
			return Fault{}, wrong
		}
		var found bool
		if f.Process, f.Center, found = strings.Cut(rest[0], "@"); !found || f.Process == "" || f.Center == "" {
			return Fault{}, wrong
		}
	default:
		if len(rest) != 1 {
			return Fault{}, wrong
		}
		f.Center = rest[0]
	}
	return f, nil
}

// String is the fault as Parse reads it.
func (f Fault) String() string {
	words := []string{string(f.Kind)}
	switch {
	case f.Process != "":
		words = append(words, f.Process+"@"+f.Center)
	case f.Center != "":
		words = append(words, f.Center)
	}
	if f.Peer != "" {
		words = append(words, f.Peer)
	}
	if f.OneWay {
		words = append(words, "--one-way")
	}
	return strings.Join(words, " ")
}

// String is the line a person or a log reader wants.
func (e Effect) String() string {
	line := fmt.Sprintf("%s: in force at monotonic %.6f s, %s",
		e.Fault, e.Monotonic.Seconds(), e.Wall.UTC().Format("2006-01-02T15:04:05.000000Z"))
	if e.Processes > 0 {
		line += fmt.Sprintf(" (%d processes)", e.Processes)
	}
	return line
}

func kinds() string {
	names := make([]string, 0, len(usage))
	for kind := range usage {
		names = append(names, string(kind))
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}
