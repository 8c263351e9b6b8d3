package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"

	"github.com/spf13/cobra"

	"tripod.dev/tripod/test/multikind/fault"
	"tripod.dev/tripod/test/multikind/lab"
)

func up(which *selection) *cobra.Command {
	var centers []string
	nodes, store := "", ""
	hub := true
	command := &cobra.Command{
		Use:   "up",
		Short: "Boot or repair the lab; return when all of it is ready",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, err := which.config()
			if err != nil {
				return err
			}
			config.Centers, config.Nodes, config.Store = centers, lab.Nodes(nodes), lab.Store(store)
			if cmd.Flags().Changed("hub") {
				config.Hub = &hub
			}
			_, err = lab.Up(cmd.Context(), config, printer(cmd.ErrOrStderr()))
			return err
		},
	}
	command.Flags().StringSliceVar(&centers, "centers", nil, "centers as REGION-NUMBER (default north-1,north-2,south-1 in a new lab)")
	command.Flags().StringVar(&store, "store", "", "etcd, or tripod: the clusters keep their objects in the hub's store (default etcd in a new lab)")
	command.Flags().StringVar(&nodes, "nodes", "", "real: clusters run pods; none: control planes only (default real in a new lab)")
	command.Flags().BoolVar(&hub, "hub", true, "run a hub member and an agent in each center")
	return command
}

func env(which *selection) *cobra.Command {
	return &cobra.Command{
		Use:   "env",
		Short: `Print shell exports: eval "$(multikind env)"`,
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := lab.Open(which.stateRoot, which.name)
			if err != nil {
				return err
			}
			for _, variable := range l.Environment() {
				fmt.Fprintf(cmd.OutOrStdout(), "export %s=%s\n", variable.Name, variable.Value)
			}
			return nil
		},
	}
}

func status(which *selection) *cobra.Command {
	var output string
	command := &cobra.Command{
		Use:   "status",
		Short: "Show power, processes and cuts of every center",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := lab.Open(which.stateRoot, which.name)
			if err != nil {
				return err
			}
			status, err := l.Status(cmd.Context())
			if err != nil {
				return err
			}
			return show(cmd.OutOrStdout(), output, status)
		},
	}
	command.Flags().StringVarP(&output, "output", "o", "", "json, or empty for a person")
	return command
}

func inject(which *selection) *cobra.Command {
	var output string
	var oneWay bool
	command := &cobra.Command{
		Use:   "fault KIND ...",
		Short: "Do a disaster, and say since when it is in force",
		Long: `Do a disaster, and say since when it is in force:

  power-off CENTER                  everything in the center dies at once; its disk stays
  power-on CENTER                   boot it again and wait until it is ready
  cut CENTER CENTER|outside         lose all packets between the two
  cut CENTER CENTER|outside --one-way   lose only packets from the first to the second
  isolate CENTER                    cut it from all other centers and the outside
  slow-disk CENTER                  make every write of what runs in the center wait
  heal                              undo every cut and slow disk
  kill|stop|cont PROCESS@CENTER     SIGKILL, SIGSTOP or SIGCONT: hub, agent, apiserver, etcd,
                                    controller-manager, scheduler, kubelet, proxy, containerd, guard, postgres

A killed process of a pod is restarted by its kubelet, any other by multikind up.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, arguments []string) error {
			f, err := fault.Parse(arguments, oneWay)
			if err != nil {
				return err
			}
			l, err := lab.Open(which.stateRoot, which.name)
			if err != nil {
				return err
			}
			effect, err := l.Inject(cmd.Context(), f)
			if err != nil {
				return err
			}
			return show(cmd.OutOrStdout(), output, effect)
		},
	}
	command.Flags().StringVarP(&output, "output", "o", "", "json, or empty for a person")
	command.Flags().BoolVar(&oneWay, "one-way", false, "cut only packets from the first center to the second")
	return command
}

func execute(which *selection) *cobra.Command {
	command := &cobra.Command{
		Use:   "exec CENTER COMMAND ...",
		Short: "Run a command inside a center, also an isolated one",
		Args:  cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, arguments []string) error {
			l, err := lab.Open(which.stateRoot, which.name)
			if err != nil {
				return err
			}
			inside, err := l.Command(cmd.Context(), arguments[0], arguments[1:]...)
			if err != nil {
				return err
			}
			inside.Stdin, inside.Stdout, inside.Stderr = cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr()
			err = inside.Run()
			if ended, ok := errors.AsType[*exec.ExitError](err); ok {
				return exitCode(ended.ExitCode())
			}
			return err
		},
	}
	command.Flags().SetInterspersed(false)
	return command
}

func down(which *selection) *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "Remove everything the lab made, also after a crash",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return lab.Down(cmd.Context(), which.stateRoot, which.name, printer(cmd.ErrOrStderr()))
		},
	}
}

func printer(to io.Writer) func(string) {
	return func(line string) { fmt.Fprintln(to, line) }
}

func show(to io.Writer, output string, value fmt.Stringer) error {
	switch output {
	case "":
		_, err := fmt.Fprintln(to, value)
		return err
	case "json":
		encoder := json.NewEncoder(to)
		return encoder.Encode(value)
	}
	return fmt.Errorf("output %q must be json or empty", output)
}
