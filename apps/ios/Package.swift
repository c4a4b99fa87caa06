// swift-tools-version:5.9
import PackageDescription

let package = Package(
    name: "DigitsKit",
    platforms: [.iOS(.v17), .macOS(.v14)],
    products: [.library(name: "DigitsKit", targets: ["DigitsKit"])],
    dependencies: [
        .package(url: "https://github.com/pytorch/executorch.git", branch: "swiftpm-1.5.1"),
    ],
    targets: [
        .target(
            name: "DigitsKit",
            dependencies: [
                .product(name: "executorch", package: "executorch"),
                .product(name: "backend_xnnpack", package: "executorch"),
                .product(name: "kernels_optimized", package: "executorch"),
                .product(name: "kernels_quantized", package: "executorch"),
            ],
            // Copied as they are: the hash of what was compiled has to be found again.
            resources: [.copy("Resources/model.pte"), .copy("Resources/golden.bin")]
        ),
    ]
)
