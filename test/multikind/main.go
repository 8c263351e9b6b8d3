// Command multikind makes fleets of real Kubernetes clusters on one Linux machine,
// breaks them on purpose, repairs them and takes them away without a trace.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"tripod.dev/tripod/test/multikind/lab"
	"tripod.dev/tripod/test/multikind/machine"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := root().ExecuteContext(ctx)
	stop()
	if inside, ok := errors.AsType[exitCode](err); ok {
		os.Exit(int(inside))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "multikind:", err)
		os.Exit(1)
	}
}

// exitCode is how a command inside a center ended; it has said itself why.
type exitCode int

func (c exitCode) Error() string { return fmt.Sprintf("exit code %d", int(c)) }

// selection is which lab a command is about.
type selection struct {
	name      string
	stateRoot string
}

// config is that of the lab, with the programs beside this one.
func (s *selection) config() (lab.Config, error) {
	program, err := os.Executable()
	if err != nil {
		return lab.Config{}, fmt.Errorf("find own program: %w", err)
	}
	return lab.Config{Name: s.name, StateRoot: s.stateRoot, BinDir: filepath.Dir(program)}, nil
}

// realLab is config for what needs pods.
func (s *selection) realLab() (lab.Config, error) {
	config, err := s.config()
	config.Nodes = lab.NodesReal
	return config, err
}

func root() *cobra.Command {
	command := &cobra.Command{
		Use:           "multikind",
		Short:         "Real multi-center Kubernetes fleets on one machine, and their disasters",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	lab := &selection{}
	command.PersistentFlags().StringVar(&lab.name, "name", "default", "which lab; two can stand side by side")
	command.PersistentFlags().StringVar(&lab.stateRoot, "state", "/var/lib/tripod-lab", "folder of all labs of this machine")
	command.AddCommand(up(lab), env(lab), status(lab), inject(lab), execute(lab), down(lab), demo(lab), bench(lab), noise(lab), images(), firstProcess())
	sayUsage(command)
	return command
}

// sayUsage completes errors about arguments with how the command is called.
func sayUsage(root *cobra.Command) {
	for _, c := range root.Commands() {
		check := c.Args
		c.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return fmt.Errorf("%d arguments do not fit: use `%s`; --help says more", len(args), cmd.UseLine())
			}
			return nil
		}
	}
}

// firstProcess is PID 1 of a center; the lab runs it, nobody else.
func firstProcess() *cobra.Command {
	return &cobra.Command{
		Use:    "machine",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE:   func(*cobra.Command, []string) error { return machine.Run() },
	}
}
