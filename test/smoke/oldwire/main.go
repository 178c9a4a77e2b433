// SPDX-License-Identifier: Apache-2.0

// Command oldwire asks an agent as the original's clients do, and prints a row
// for each flow. The smoke test uses it.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	pb "github.com/orb8/orb8/api/orb8/v1"
)

func main() {
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "oldwire:", err)
		os.Exit(1)
	}
}

func run(address string) error {
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	client := pb.NewOrbitAgentServiceClient(conn)
	status, err := client.GetStatus(ctx, &pb.GetStatusRequest{})
	if err != nil {
		return err
	}
	fmt.Printf("healthy=%v processed=%d\n", status.Healthy, status.EventsProcessed)
	resp, err := client.QueryFlows(ctx, &pb.QueryFlowsRequest{Limit: 10})
	if err != nil {
		return err
	}
	for _, f := range resp.Flows {
		fmt.Printf("%s/%s %s %s:%d %s:%d %s %d %d\n", f.Namespace, f.PodName, f.Protocol, f.SrcIp, f.SrcPort, f.DstIp, f.DstPort, f.Direction, f.Bytes, f.Packets)
	}
	return nil
}
