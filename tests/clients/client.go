// Calls a running server through openapi-generator's Go client, and fails at the first answer that is not as expected.
//
//	go run . http://127.0.0.1:8000
package main

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"log"
	"os"

	"client/vaeserve"
)

func check(fact bool, what string) {
	if !fact {
		log.Fatal(what)
	}
}

// contents of a file that an answer came in, which must be a success.
func contents(file *os.File, err error, what string) []byte {
	check(err == nil, what)
	defer os.Remove(file.Name())
	defer file.Close()
	read, err := io.ReadAll(file)
	check(err == nil, what)
	return read
}

// A file with these contents, at its start: an upload begins where the file stands.
func file(contents []byte) *os.File {
	made, err := os.CreateTemp("", "vaeserve")
	check(err == nil, "a temporary file")
	_, err = made.Write(contents)
	check(err == nil, "a temporary file")
	_, err = made.Seek(0, io.SeekStart)
	check(err == nil, "a temporary file")
	return made
}

func main() {
	ctx := context.Background()
	configuration := vaeserve.NewConfiguration()
	configuration.Servers = vaeserve.ServerConfigurations{{URL: os.Args[1]}}
	client := vaeserve.NewAPIClient(configuration)

	sampled, _, err := client.SampleAPI.SampleImage(ctx).Seed(7).Execute()
	picture := contents(sampled, err, "sample")
	check(string(picture[1:4]) == "PNG", "sample")
	text := base64.StdEncoding.EncodeToString(picture)

	request := *vaeserve.NewPicturesRequest([]string{text})
	encoded, _, err := client.EncodeAPI.Encode(ctx).PicturesRequest(request).Fit(vaeserve.CROP).Execute()
	check(err == nil, "encode")
	var mean [][]float32 = encoded.Mean // a list of lists of numbers, whatever the model
	check(len(mean) == 1 && len(mean[0]) == 32, "encode")

	uploaded, _, err := client.EncodeAPI.EncodeFiles(ctx).Images([]*os.File{file(picture), file(picture)}).Execute()
	check(err == nil && len(uploaded.Mean) == 2 && uploaded.Mean[0][0] == uploaded.Mean[1][0], "upload")

	drawn, _, err := client.DecodeAPI.DecodeImage(ctx).DecodeRequest(*vaeserve.NewDecodeRequest(mean)).Scale(4).Execute()
	check(string(contents(drawn, err, "decode")[1:4]) == "PNG", "decode")

	array, _, err := client.SampleAPI.SampleNpy(ctx).N(2).Seed(1).Execute()
	npy := contents(array, err, "an npy array")
	check(string(npy[1:6]) == "NUMPY", "an npy array")
	arrays, _, err := client.EncodeAPI.EncodeNpy(ctx).Body(file(npy)).Execute()
	check(string(contents(arrays, err, "arrays of an npy array")[:2]) == "PK", "arrays of an npy array")

	wrong := *vaeserve.NewPicturesRequest([]string{text, "AAAA"})
	_, _, err = client.EncodeAPI.Encode(ctx).PicturesRequest(wrong).Execute()
	var refused *vaeserve.GenericOpenAPIError
	check(errors.As(err, &refused), "an error")
	problem, is := refused.Model().(vaeserve.Problem)
	check(is && problem.Status == 422 && problem.Errors[0].Pointer == "/images/1", "the error's place")
}
