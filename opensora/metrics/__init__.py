"""Compare videos by PSNR, SSIM, LPIPS and the Frechet video distance; `opensora evaluate`."""
