package lab

import (
	"context"
	"fmt"
	"strings"

	"tripod.dev/tripod/test/multikind/fault"
	"tripod.dev/tripod/test/multikind/machine"
	"tripod.dev/tripod/test/multikind/network"
)

// Status is what a lab is at one moment.
type Status struct {
	Name    string            `json:"name"`
	Nodes   Nodes             `json:"nodes"`
	Hub     bool              `json:"hub"`
	Folder  string            `json:"folder"`
	Centers []CenterStatus    `json:"centers"`
	Cuts    []fault.Direction `json:"cuts"`
}

// CenterStatus is what one center is at one moment.
type CenterStatus struct {
	Name      string          `json:"name"`
	Region    string          `json:"region"`
	Address   string          `json:"address"`
	Power     bool            `json:"power"`
	Connected bool            `json:"connected"`
	Processes []ProcessStatus `json:"processes"`
}

// ProcessStatus is one process that runs, or ran, in a center. Pods' processes are
// listed by program.
type ProcessStatus struct {
	Name string `json:"name"`
	// PID is the number on the host; 0 when it does not run.
	PID   int          `json:"pid"`
	State ProcessState `json:"state"`
	// Detail says how a process ended.
	Detail string `json:"detail,omitempty"`
}

// ProcessState is what a process does.
type ProcessState string

// The states.
const (
	Running ProcessState = "running"
	Stopped ProcessState = "stopped"
	Ended   ProcessState = "ended"
)

// Status looks at the lab without changing it or waiting for its lock.
func (l *Lab) Status(ctx context.Context) (Status, error) {
	fresh, err := Open(l.root, l.name)
	if err != nil {
		return Status{}, err
	}
	status := Status{Name: l.name, Nodes: fresh.state.Nodes, Hub: fresh.state.Hub, Folder: l.path(), Cuts: fresh.state.Cuts}
	for _, plan := range fresh.plans {
		c := CenterStatus{Name: plan.Name, Region: plan.Region, Address: plan.Address.String(), Connected: network.Connected(plan)}
		b, err := fresh.findBox(ctx, plan)
		if err != nil {
			return Status{}, fmt.Errorf("look at %s: %w", plan.Name, err)
		}
		if b != nil {
			c.Power = true
			c.Processes, err = b.processes(ctx)
			_ = b.Close()
		}
		if err != nil {
			return Status{}, fmt.Errorf("look at %s: %w", plan.Name, err)
		}
		status.Centers = append(status.Centers, c)
	}
	return status, nil
}

func (b *box) processes(ctx context.Context) ([]ProcessStatus, error) {
	list, err := b.client.List(ctx)
	if err != nil {
		return nil, err
	}
	pids, err := b.plan.Cgroup.Processes()
	if err != nil {
		return nil, err
	}
	host := map[int]int{}
	pods := map[string][]int{}
	for _, pid := range pids {
		inner, depth := innerPID(pid)
		if depth == 2 {
			host[inner] = pid
		} else if depth > 2 {
			program := programOf(pid)
			pods[program] = append(pods[program], pid)
		}
	}
	var processes []ProcessStatus
	for _, name := range processNames() {
		if known, ok := list[name]; ok {
			processes = append(processes, own(known, host))
		}
		for _, pid := range pods[containerPrograms[name]] {
			processes = append(processes, ProcessStatus{Name: name, PID: pid, State: stateOf(pid)})
		}
	}
	return processes, nil
}

func own(known machine.Status, host map[int]int) ProcessStatus {
	if !known.Running {
		return ProcessStatus{Name: known.Name, State: Ended, Detail: known.Exit}
	}
	pid := host[known.PID]
	return ProcessStatus{Name: known.Name, PID: pid, State: stateOf(pid)}
}

func stateOf(pid int) ProcessState {
	if stopped(pid) {
		return Stopped
	}
	return Running
}

// String is the status for a person: a line a center, then what is not as it should be.
func (s Status) String() string {
	var out strings.Builder
	for _, c := range s.Centers {
		power := "on"
		if !c.Power {
			power = "off"
		}
		fmt.Fprintf(&out, "%-12s %-8s %-14s power %-4s", c.Name, c.Region, c.Address, power)
		for _, p := range c.Processes {
			word := p.Name
			if p.State != Running {
				word += "(" + strings.TrimSpace(string(p.State)+" "+p.Detail) + ")"
			}
			out.WriteString(" " + word)
		}
		out.WriteString("\n")
	}
	for _, cut := range s.Cuts {
		fmt.Fprintf(&out, "cut          %s\n", cut)
	}
	return out.String()
}
