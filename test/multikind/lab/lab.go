package lab

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"tripod.dev/tripod/test/multikind/center"
)

// Variable is one shell variable.
type Variable struct{ Name, Value string }

// Environment tells programs where the lab is: KUBECONFIG, and TRIPOD_HUB with the
// addresses of all hub members, comma separated.
func (l *Lab) Environment() []Variable {
	variables := []Variable{{Name: "KUBECONFIG", Value: l.Kubeconfig()}}
	if l.state.Hub {
		variables = append(variables, Variable{Name: "TRIPOD_HUB", Value: strings.Join(l.HubAddresses(), ",")})
	}
	return variables
}

// HubAddresses are the HOST:PORT addresses of the hub members' APIs, in the order of
// the centers.
func (l *Lab) HubAddresses() []string {
	var addresses []string
	for _, plan := range l.plans {
		addresses = append(addresses, fmt.Sprintf("%s:%d", plan.Address, center.HubPort))
	}
	return addresses
}

// Centers returns the plans of the lab's centers.
func (l *Lab) Centers() []center.Plan { return slices.Clone(l.plans) }

// Folder is where the lab keeps the disk of a center (below lib, logs and tmp).
func (l *Lab) Folder(center string) string { return l.path(center) }

// Command prepares a command that runs inside a center, whatever its network does. Its
// output and input are the caller's to set.
func (l *Lab) Command(ctx context.Context, center string, arguments ...string) (*exec.Cmd, error) {
	plan, err := l.plan(center)
	if err != nil {
		return nil, err
	}
	pid, err := l.findInit(plan)
	if err != nil {
		return nil, err
	}
	if pid == 0 {
		return nil, fmt.Errorf("run %s: %s has no power", arguments[0], center)
	}
	enter := []string{"--target", strconv.Itoa(pid), "--mount", "--uts", "--ipc", "--net", "--pid", "--"}
	return exec.CommandContext(ctx, "nsenter", append(enter, arguments...)...), nil
}
