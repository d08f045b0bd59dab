"""Command lines, scripts, flags and values of the published version."""

import re

COMMAND_LINES = r"""
bash scripts/model_conversion/convert_all.sh
python examples/rec_imvi_vae.py --model_path LanguageBind/Open-Sora-Plan-v1.1.0/vae --video_path test.mp4
    --rec_path rec.mp4 --device Ascend --sample_rate 1 --num_frames 513 --resolution 256 --crop_size 256
    --ae CausalVAEModel_4x8x8
bash scripts/causalvae/reconstruction.sh --grid --video_path other.mp4
bash scripts/causalvae/gen_video.sh
python opensora/eval/eval_common_metrics.py --real_video_dir videos --generated_video_dir
    videos_reconstructed --metric ssim --num_frames 17
bash scripts/text_condition/sample_video.sh --pretrained_ckpt output_dir/ckpt_full/rank_0/full_0.ckpt
bash scripts/text_condition/sample_video_65.sh --save_latents
bash scripts/text_condition/sample_video_65.sh --decode_latents --enable_time_chunk True
bash scripts/text_condition/sample_video_221.sh
python opensora/sample/sample_t2v.py --model_path LanguageBind/Open-Sora-Plan-v1.1.0 --text_encoder_name
    DeepFloyd/t5-v1_1-xxl --text_prompt examples/prompt_list_65.txt --ae CausalVAEModel_4x8x8 --version
    65x512x512 --num_frames 65 --height 512 --width 512 --save_img_path "./sample_videos/prompt_list_65"
    --fps 24 --guidance_scale 7.5 --num_sampling_steps 150 --enable_tiling
msrun --master_port=8200 --worker_num=8 --local_worker_num=8 --log_dir="output_log" python
    opensora/sample/sample_t2v.py --use_parallel True --version 221x512x512
python tools/model_conversion/inflate_vae2d_to_vae3d.py --src /path/to/vae_2d.ckpt --target
    pretrained/causal_vae_488_init.ckpt
python tools/model_conversion/convert_vae.py --src sd-vae-ft-mse/diffusion_pytorch_model.bin --target
    vae_2d.ckpt
bash scripts/causalvae/train.sh
msrun --master_port=8200 --worker_num=8 --local_worker_num=8 --log_dir="output_log" python
    opensora/train/train_causalvae.py --use_parallel True --video_path videos
python tools/model_conversion/convert_latte.py --src LanguageBind/Open-Sora-Plan-v1.1.0/t2v.pt --target
    LanguageBind/Open-Sora-Plan-v1.1.0/t2v.ckpt
python opensora/sample/sample_text_embed.py --data_file_path /path/to/caption.json --output_path
    /path/to/text_embed_folder
msrun --bind_core=True --worker_num=8 --local_worker_num=8 --master_port=9000
    --log_dir=output_dir/parallel_logs opensora/train/train_t2v.py --video_data
    "scripts/train_data/video_data.txt" --image_data "scripts/train_data/image_data.txt" --pretrained
    LanguageBind/Open-Sora-Plan-v1.1.0/t2v.ckpt
bash scripts/text_condition/train_videoae_65x512x512.sh
python tools/ckpt/combine_ckpt.py --src output_dir/ckpt --dest output_dir/ckpt --strategy_ckpt
    output_dir/src_strategy.ckpt
bash scripts/text_condition/train_videoae_221x512x512.sh --pretrained output_dir/ckpt/rank_0/full_0.ckpt
bash scripts/text_condition/train_videoae_221x512x512_sp.sh --dataloader_num_workers 4
    --dataloader_prefetch_size 8
bash scripts/text_condition/train_videoae_513x512x512_sp.sh
"""
"""The command lines of its guide, its scripts with the arguments that the guide adds, and an evaluation.

An indented line continues the one before.
"""
LINES = [" ".join(line.split("\n    ")) for line in re.split(r"\n(?! )", COMMAND_LINES.strip())]

TRAINING = """
    device max_device_memory mode use_parallel parallel_mode seed optimizer_weight_shard_size optim betas
    optim_eps group_strategy clip_grad max_grad_norm use_ema ema_decay gradient_accumulation_steps
    weight_decay lr_warmup_steps start_learning_rate end_learning_rate lr_decay_steps lr_scheduler
    scale_lr batch_size dataset_sink_mode epochs dataloader_num_workers max_rowsize init_loss_scale
    loss_scale_factor scale_window precision amp_level drop_overflow_update loss_scaler_type global_bf16
    use_recompute enable_flash_attention resume_from_checkpoint ckpt_save_interval ckpt_max_keep step_mode
    profile log_level log_interval output_dir
"""
V10_TRAINING = """
    ae ae_path sample_rate num_frames max_image_size compress_kv attention_mode tile_overlap_factor
    enable_tiling pretrained dynamic_frames enable_tracker use_image_num use_img_from_vid use_deepspeed seed
    model num_classes num_validation_videos output_dir train_batch_size num_train_epochs max_train_steps
    checkpointing_steps checkpoints_total_limit resume_from_checkpoint gradient_accumulation_steps
    gradient_checkpointing learning_rate scale_lr lr_scheduler lr_warmup_steps timestep_bias_strategy
    timestep_bias_multiplier timestep_bias_begin timestep_bias_end timestep_bias_portion snr_gamma use_ema
    allow_tf32 dataloader_num_workers use_8bit_adam adam_beta1 adam_beta2 adam_weight_decay adam_epsilon
    max_grad_norm push_to_hub hub_token hub_model_id prediction_type logging_dir report_to mixed_precision
    local_rank noise_offset dataset data_path
"""
FLAGS = {
    "generate": """
        model_path pretrained_ckpt version num_frames height width ae sp_size text_encoder_name
        save_img_path guidance_scale sample_method num_sampling_steps fps text_prompt tile_overlap_factor
        force_images enable_tiling enable_time_chunk batch_size device max_device_memory mode use_parallel
        parallel_mode jit_level seed enable_flash_attention precision global_bf16 vae_precision
        vae_keep_gn_fp32 text_encoder_precision amp_level precision_mode num_videos_per_prompt
        save_latents decode_latents run_time
    """,
    "train": TRAINING + """
        image_data video_data filter_nonexistent text_embed_cache vae_latent_folder model ae ae_path
        num_frames max_image_size compress_kv_factor use_rope pretrained tile_overlap_factor enable_tiling
        text_encoder_name model_max_length multi_scale use_image_num use_img_from_vid max_train_steps
        checkpointing_steps enable_flip num_no_recompute dataloader_prefetch_size sp_size vae_keep_gn_fp32
        vae_precision text_encoder_precision jit_level
    """ + V10_TRAINING + "video_folder text_encoder_name model_max_length cache_dir",
    "train-class": V10_TRAINING + "train_classcondition extras",
    "generate-class": """
        ckpt model ae save_video_path fps num_classes num_frames image_size train_classcondition
        num_sampling_steps num_sample cfg_scale sample_method mixed_precision attention_mode
        extras
    """,
    "interpolate": "ckpt niters input output_path frame_rate",
    "upscale": "SR ckpt_path root_path input_dir output_dir mul_numwork use_chop",
    "train-vae": TRAINING + """
        use_discriminator model_config max_steps save_steps video_path data_file_path video_column
        video_num_frames sample_rate dynamic_sample resolution load_from_checkpoint random_crop
    """,
    "embed-text": """
        data_file_path prompt_path output_path captions file_column caption_column batch_size model_max_length
    """,
    "reconstruct": """
        video_path rec_path fps resolution crop_size num_frames sample_rate tile_overlap_factor
        enable_tiling enable_time_chunk grid real_video_dir generated_video_dir sample_fps batch_size
        num_workers output_origin dynamic_start_index data_file_path
    """,
    "evaluate": """
        real_video_dir generated_video_dir metric resolution crop_size num_frames sample_rate subset_size
    """,
    "convert": "src target",
    "inflate-vae": "src target",
    "combine": "src dest strategy_ckpt",
}  # fmt: skip
"""Flags of the published version's scripts, and of v1.0.0's, by the command that replaces them.

All have `config` as well.
"""

VALUES = {
    "interpolate": "--ckpt amt-g.pth --input test.mp4 --rec_path out.mp4 --frame_rate 30",
    "upscale": """
        --ckpt_path RGT_x4.pth --input_dir test.mp4 --rec_path out.mp4 --root_path . --mul_numwork 16
        --use_chop True
    """,
    "train-class": """
        --model Latte-XL/122 --video_data list.txt --num_classes 101 --ae demo --sample_rate 3 --num_frames
        16 --max_image_size 128 --train_batch_size=8 --gradient_accumulation_steps=1 --max_train_steps=1000000
        --learning_rate=1e-04 --lr_scheduler="constant" --lr_warmup_steps=0 --checkpointing_steps=500
        --output_dir="class_ucf101" --train_classcondition --gradient_checkpointing --attention_mode flash
        --report_to="wandb" --enable_tracker --allow_tf32 --checkpoints_total_limit 3
        --timestep_bias_strategy none --noise_offset 0 --resume_from_checkpoint="latest"
    """,
    "generate-class": """
        --ckpt class_ucf101 --model Latte-XL/122 --ae demo --save_video_path ./sample_videos/ --fps 10
        --num_classes 101 --num_frames 16 --image_size 256 --train_classcondition --num_sampling_steps 250
        --num_sample 1 --cfg_scale 4.0 --sample_method ddpm --attention_mode flash
    """,
    "generate": """
        --sample_method PNDM --num_sampling_steps 50 --seed 4 --jit_level O0 --mode 0 --max_device_memory
        59GB --parallel_mode data --enable_flash_attention True --precision bf16 --device Ascend
        --global_bf16 False --vae_precision bf16 --vae_keep_gn_fp32 False --text_encoder_precision bf16
        --amp_level O2 --precision_mode must_keep_origin_dtype --force_images False --sp_size 1
    """,
    "train": """
        --video_data list.txt --model LatteT2V-XL/122 --ae CausalVAEModel_4x8x8 --ae_path
        LanguageBind/Open-Sora-Plan-v1.1.0 --dataset t2v --model_path LanguageBind/Open-Sora-Plan-v1.1.0
        --enable_flash_attention True --batch_size=2 --dataloader_num_workers 10
        --gradient_accumulation_steps=1 --max_train_steps=1000000 --start_learning_rate=2e-05
        --lr_scheduler="constant" --lr_warmup_steps=0 --precision=bf16 --amp_level=O2
        --checkpointing_steps=500 --model_max_length 300 --clip_grad True --enable_tiling --use_recompute
        True --num_no_recompute 6 --dataset_sink_mode True --parallel_mode "data" --max_device_memory 59GB
        --optim adamw --betas 0.9 0.999 --group_strategy norm_and_bias --use_ema True
        --drop_overflow_update True --loss_scaler_type dynamic --init_loss_scale 65536 --step_mode True
        --profile False --use_rope False --use_img_from_vid False --multi_scale False
    """,
    "train-vae": """
        --model_config MODEL/vae --video_path videos --exp_name "9x256x256" --batch_size 1 --precision
        fp32 --max_steps 100000 --save_steps 2000 --output_dir results/causalvae --video_num_frames 9
        --resolution 256 --sample_rate 1 --dataloader_num_workers 8 --load_from_checkpoint
        pretrained/causal_vae_488_init.ckpt --start_learning_rate 1e-5 --lr_scheduler constant --optim
        adam --betas 0.5 0.9 --clip_grad True --weight_decay 0.0 --mode 0 --init_loss_scale 128
        --jit_level "O0" --use_discriminator True
    """,
}  # fmt: skip
"""Values in the published version's scripts, or their defaults."""

V10_VALUES = {
    "generate": """
        --model_path LanguageBind/Open-Sora-Plan-v1.0.0 --text_encoder_name DeepFloyd/t5-v1_1-xxl
        --text_prompt examples/prompt_list_0.txt --ae CausalVAEModel_4x8x8 --version 65x512x512
        --save_img_path "./sample_videos/prompt_list_0" --fps 24 --guidance_scale 7.5 --num_sampling_steps 250
        --enable_tiling --run_time 0
    """,
    "train": """
        --model_path MODEL --video_data list.txt --model LatteT2V-XL/122 --text_encoder_name
        DeepFloyd/t5-v1_1-xxl --dataset t2v --ae CausalVAEModel_4x8x8 --ae_path CausalVAEModel_4x8x8
        --sample_rate 1 --num_frames 17 --max_image_size 256 --gradient_checkpointing --attention_mode
        xformers --train_batch_size=4 --dataloader_num_workers 10 --gradient_accumulation_steps=1
        --max_train_steps=1000000 --learning_rate=2e-05 --lr_scheduler="constant" --lr_warmup_steps=0
        --report_to="wandb" --checkpointing_steps=500 --output_dir="t2v-f17-256-img4" --allow_tf32
        --pretrained t2v.pt --use_deepspeed --model_max_length 300 --use_image_num 4 --use_img_from_vid
    """,
}
"""Values in v1.0.0's scripts for texts, with data lists in place of their data."""
