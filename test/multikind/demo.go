package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"tripod.dev/tripod/test/multikind/scenario"
)

func demo(which *selection) *cobra.Command {
	rounds := 1
	folder := "_demo"
	command := &cobra.Command{
		Use:   "demo",
		Short: "From nothing to a survived disaster: boot, deploy, lose a center under traffic, audit",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if rounds < 1 || rounds > 100 {
				return fmt.Errorf("rounds is %d: use 1 to 100", rounds)
			}
			config, err := which.realLab()
			if err != nil {
				return err
			}
			return scenario.Demo(cmd.Context(), scenario.DemoConfig{
				Lab:    config,
				Rounds: rounds, Folder: folder, Out: cmd.OutOrStdout(),
			})
		},
	}
	command.Flags().IntVar(&rounds, "rounds", rounds, "how many times the primary's center is lost; the centers alternate")
	command.Flags().StringVar(&folder, "folder", folder, "where result.json and the clients' journals go")
	return command
}
