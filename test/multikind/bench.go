package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"tripod.dev/tripod/test/multikind/scenario"
)

func bench(which *selection) *cobra.Command {
	rounds := 10
	folder := "_bench"
	command := &cobra.Command{
		Use:   "bench",
		Short: "Measure failovers and switchovers under traffic; one JSON object a line",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if rounds < 1 || rounds > 1000 {
				return fmt.Errorf("rounds is %d: use 1 to 1000", rounds)
			}
			config, err := which.realLab()
			if err != nil {
				return err
			}
			return scenario.Bench(cmd.Context(), scenario.BenchConfig{
				Lab:    config,
				Rounds: rounds, Folder: folder, Out: cmd.OutOrStdout(), Tell: cmd.ErrOrStderr(),
			})
		},
	}
	command.Flags().IntVar(&rounds, "rounds", rounds, "how many times the primary's center is lost; in every second one with the hub's leader")
	command.Flags().StringVar(&folder, "folder", folder, "where the clients' journals go")
	return command
}
