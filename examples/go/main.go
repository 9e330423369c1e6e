// Command search asks which products look like a photo: search HOST:PORT COLLECTION PHOTO.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	vitrine "example.com/shop/vitrine/v1"
)

func main() {
	photo, err := os.ReadFile(os.Args[3])
	if err != nil {
		log.Fatal(err)
	}
	// Plain text, for this machine; elsewhere: grpc.WithTransportCredentials(credentials.NewTLS(nil)).
	connection, err := grpc.Dial(os.Args[1], grpc.WithInsecure())
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if token := os.Getenv("VITRINE_TOKEN"); token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	}
	answer, err := vitrine.NewVisualSearchClient(connection).Search(ctx, &vitrine.SearchRequest{
		Collection: os.Args[2],
		Query:      []*vitrine.QueryPart{{Query: &vitrine.QueryPart_Image{Image: photo}}},
		K:          5,
	})
	if err != nil {
		log.Fatal(err)
	}
	for _, result := range answer.Results {
		fmt.Printf("%d %s %.3f\n", result.Rank, result.ProductId, result.Score)
	}
	fmt.Printf("%d of %d shards answered\n", answer.Coverage.ShardsAnswered, answer.Coverage.ShardsTotal)
}
